"""What a fit will take: memory, disk and time, estimated from a few images.

The seed images (at most ten of them) and sixteen other images are described and associated, and the measurements are
scaled up. Bytes follow from the share of patches that join a channel, which is where the estimate can be wrong. Seconds
are those of this machine with its present load.
"""

from __future__ import annotations

import math
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from ..array_types import Array, FloatArray, IndexArray, UInt8Array
from ..errors import ImageError
from ..images.source import ImageSource
from ..kernels import Bank, backend_of, nearest
from ..kernels.registry import cpu_backend
from ..memory import format_bytes
from ..method.association import Associator, given_seeds, members_of
from ..method.descriptors import DescriptorSpace, described_rows, in_memory
from ..parameters import Parameters
from ..progress import no_progress
from .context import FitContext
from .limits import check_enough, check_limit_for_images
from .reading import decide_positions

_MOST_SEEDS: Final = 10
_OTHERS: Final = 16
# Bytes that are kept of a member besides its row (patch, channel, whether it is nominal), and of a nominal patch.
_MEMBER_IDS, _NOMINAL_IDS = 13, 32


@dataclass(frozen=True)
class FitPlan:
    """What a fit is expected to take.

    Attributes:
        images: their number. patches: of an image. dimensions: values in a descriptor (with position channels, if they
            may be used).
        smallest, largest: (height, width) in pixels of the measured images.
        measured_images: how many were described for this plan.
        join_rate: share of an image's patches that join a channel.
        members: patches that are kept before the filters, the seed images' included; the model has at most as many.
        memory: bytes by part: "process" (this process with its network, after one image), "seeds" (their descriptors
            and search structures), "image" (one image at a time), "limit" (``memory_limit``), "used" (what of it the
            fit will use); "peak" is process + seeds + image + used.
        disk: bytes by part: "spool" (at its largest; with ``spool``, or if ``memory_limit`` is exceeded), "model",
            "final_model" (saved with ``final=True``), and "peak": spool and model on one disk, while the model is
            saved. The members that turn out not to be nominal, whose number is not known yet, come on top, unless the
            model is final.
        seconds: by stage.
    """

    images: int
    patches: int
    dimensions: int
    smallest: tuple[int, int]
    largest: tuple[int, int]
    measured_images: int
    join_rate: float
    members: int
    memory: dict[str, int]
    disk: dict[str, int]
    seconds: dict[str, float]

    @property
    def total_seconds(self) -> float:
        """Seconds of all stages."""
        return sum(self.seconds.values())

    def as_dict(self) -> dict[str, Any]:
        """JSON-able copy, with the total of the seconds."""
        values = asdict(self)
        values.update(smallest=list(self.smallest), largest=list(self.largest), total_seconds=self.total_seconds)
        return values

    def __str__(self) -> str:
        memory, disk = ({name: format_bytes(n) for name, n in part.items()} for part in (self.memory, self.disk))
        sizes = "x".join(map(str, self.smallest))
        if self.largest != self.smallest:
            sizes += " to " + "x".join(map(str, self.largest))
        stages = ", ".join(f"{name} {_duration(seconds)}" for name, seconds in self.seconds.items())
        return "\n".join(
            [
                f"images   {self.images:,} of {sizes} pixels; {self.patches:,} patches of {self.dimensions} values",
                f"joining  {self.join_rate:.1%} of the patches join a channel ({self.measured_images} measured), "
                f"{self.members:,} are kept before the filters",
                f"memory   peak {memory['peak']}: process and network {memory['process']}, seed images "
                f"{memory['seeds']}, one image {memory['image']}, and {memory['used']} within the limit of "
                f"{memory['limit']}",
                f"disk     spool up to {disk['spool']}; model {disk['model']}, or {disk['final_model']} if final; "
                f"both on one disk {disk['peak']}, and the members that are not nominal once more",
                f"time     about {_duration(self.total_seconds)}: {stages}",
            ]
        )


def plan_fit(context: FitContext, source: ImageSource) -> FitPlan:
    """Measures a few images and estimates what a fit of all will take; see `InReaCh.plan`."""
    p, count, budget = context.parameters, len(source), context.workspace.budget
    check_enough(count)
    chosen = _any_seeds(context, source.names)
    check_limit_for_images(context, count)
    measured_seeds = _some(chosen, _MOST_SEEDS).tolist()
    others = _some(np.setdiff1d(np.arange(count), chosen), _OTHERS).tolist()
    measured = _Measurement(context, source, len(measured_seeds) + len(others))

    first = measured.rows(measured_seeds[0])  # also does what is done only once
    process = resident_bytes()
    measured.reading = measured.describing = 0.0
    seed_rows = np.stack([first, *(measured.rows(number) for number in measured_seeds[1:])])
    patches, dim = first.shape
    before = resident_bytes()
    places = np.arange(len(seed_rows), dtype=np.int64)
    associator = Associator(places, seed_rows, backend=backend_of(p))
    rates: list[float] = []
    kept: list[FloatArray] = [seed_rows.reshape(-1, dim)]
    associating = summing = 0.0
    for number in others or measured_seeds[1:]:
        rows = measured.rows(number)
        found = members_of(associator, len(places) + number, rows, is_seed=False, whole=False)
        associating += found.seconds[1]
        rates.append(len(found.patch) / patches)
        kept.append(found.rows)
        summing += _summing(found.rows, backend_of(p))
    prepared = max(0, resident_bytes() - before)
    join_rate = float(np.mean(rates))
    members = len(chosen) * patches + round((count - len(chosen)) * join_rate * patches)
    bank_rows = np.concatenate(kept)
    index_bytes, index_seconds, search_seconds = _searching(bank_rows, first, backend_of(p))

    row_bytes = 4 * dim
    inputs = count * p.image_size[0] * p.image_size[1] * 3
    rest = round(min(p.threshold_images, count) * (1 - join_rate) * patches) * row_bytes
    member_bytes = members * row_bytes
    on_disk = member_bytes > budget.members
    index = round(index_bytes * members / len(bank_rows))
    ids = _NOMINAL_IDS * members + index
    memory = {
        "process": process,
        "seeds": len(chosen) * patches * row_bytes + round(prepared * len(chosen) / len(seed_rows)),
        "image": 3 * patches * row_bytes,
        "limit": budget.limit,
        "used": min(budget.limit, inputs + 2 * member_bytes + rest + ids),
    }
    memory["peak"] = sum(memory[name] for name in ("process", "seeds", "image", "used"))
    disk = {
        "spool": member_bytes
        + rest
        + 16 * members
        + (inputs if inputs > budget.inputs else 0)
        + (index + 16 * members if on_disk else 0),
        "model": member_bytes + (_MEMBER_IDS + _NOMINAL_IDS) * members + inputs + 32 * count + index,
        "final_model": member_bytes + ids,
    }
    disk["peak"] = disk["spool"] + disk["model"] - (member_bytes if on_disk else 0)  # the model takes the rows over
    timed = max(1, len(measured.inputs) - 1)  # the first image is not counted
    return FitPlan(
        images=count,
        patches=patches,
        dimensions=dim,
        smallest=min(measured.sizes, key=math.prod),
        largest=max(measured.sizes, key=math.prod),
        measured_images=len(measured.inputs),
        join_rate=join_rate,
        members=members,
        memory=memory,
        disk=disk,
        seconds={
            "read": measured.reading / timed * count,
            "align": _aligning(measured.inputs, p) / len(measured.inputs) * count,
            "describe": measured.describing / timed * count,
            "associate": associating / len(rates) * count,
            "filter": summing / len(rates) * count,
            "index": index_seconds * members / len(bank_rows),
            "threshold": search_seconds * min(p.threshold_images, count),
        },
    )


class _Measurement:
    """Reads and describes images one at a time, and adds up the time."""

    def __init__(self, context: FitContext, source: ImageSource, total: int) -> None:
        self._context, self._source, self._total = context, source, total
        self.sizes: list[tuple[int, int]] = []
        self.inputs: list[UInt8Array] = []
        self.reading = self.describing = 0.0

    def rows(self, number: int) -> FloatArray:
        """An image's descriptors, (P, D), with position channels if they may be used."""
        context = self._context
        begin = time.perf_counter()
        image = self._load(number)
        self.sizes.append((int(image.shape[0]), int(image.shape[1])))
        pixels = context.geometry.apply(image)
        self.inputs.append(pixels)
        read = time.perf_counter()
        rows = in_memory(described_rows(context.describer, pixels, DescriptorSpace(), self._source.names[number]))
        if context.parameters.position != "never":
            rows = np.concatenate([rows, np.zeros((len(rows), 2), np.float32)], axis=1)
        self.reading += read - begin
        self.describing += time.perf_counter() - read
        context.progress("plan", len(self.inputs), max(self._total, len(self.inputs)))
        return rows

    def _load(self, number: int) -> UInt8Array:
        """The image, or the next one that can be read: a plan does not need every image."""
        error: ImageError | None = None
        for step in range(len(self._source)):
            try:
                return self._source.load((number + step) % len(self._source))
            except ImageError as problem:
                error = error or problem
        assert error is not None
        raise error


def _aligning(inputs: list[UInt8Array], p: Parameters) -> float:
    """Seconds of the position test of these images, and of their alignment if the test fails and it is asked for."""
    begin = time.perf_counter()
    decide_positions(inputs, p, no_progress)
    return time.perf_counter() - begin


def _any_seeds(context: FitContext, names: list[str]) -> IndexArray:
    """As many images as the fit has seeds: the caller's, or any, since a fit draws them by what all images show."""
    if context.seeds is not None:
        return given_seeds(context.seeds, names, range(len(names)))
    random = np.random.default_rng(context.parameters.random_state)
    return np.sort(random.choice(len(names), context.seed_count(len(names)), replace=False)).astype(np.int64)


def _some(numbers: IndexArray, most: int) -> IndexArray:
    """At most so many of the numbers, evenly spaced."""
    places = np.linspace(0, max(len(numbers) - 1, 0), num=min(len(numbers), most)).astype(np.int64)
    return numbers[np.unique(places)]


def _summing(rows: FloatArray, backend: str) -> float:
    """Seconds that the filters' two passes take for the members of one image."""
    if not len(rows):
        return 0.0
    begin = time.perf_counter()
    slots = np.arange(len(rows), dtype=np.int64)
    sums = np.zeros(rows.shape)
    cpu_backend(backend).add_rows(rows, slots, sums)
    cpu_backend(backend).distances(rows, slots, sums)
    return time.perf_counter() - begin


def _searching(rows: FloatArray, queries: FloatArray, backend: str) -> tuple[int, float, float]:
    """Bytes and seconds of an index of the rows, and seconds of one image's search."""
    bank = Bank(rows, np.zeros(len(rows), dtype=np.int64))
    begin = time.perf_counter()
    arrays: dict[str, Array] = bank.index_arrays()
    built = time.perf_counter()
    nearest(queries, bank, backend=backend)
    return sum(array.nbytes for array in arrays.values()), built - begin, time.perf_counter() - built


def resident_bytes() -> int:
    """Resident memory of this process; 0 if the system does not say (Windows, macOS)."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


def _duration(seconds: float) -> str:
    for size, unit in ((3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"
