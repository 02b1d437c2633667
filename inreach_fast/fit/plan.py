"""What a fit will take, before it is begun: memory, disk and time, from a measurement of a few images.

The seed images (at most ten of them) are described, a few other images are described and associated with them, and
what was measured is multiplied. Bytes follow from the share of patches that join a channel; that share is what an
estimate of a few images can miss by. Seconds are this machine's, as busy as it is now.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from ..array_types import Array, FloatArray, IndexArray, UInt8Array
from ..errors import ImageError
from ..images.preprocess import Geometry
from ..images.source import ImageSource
from ..kernels import Bank, channel_sums, nearest
from ..memory import format_bytes
from ..method.association import Associator, choose_seeds, given_seeds, members_of
from ..method.descriptors import Describer, described_rows, in_memory
from ..parameters import Parameters
from ..storage.workspace import Budget
from .nominate import silent
from .pipeline import check_enough, check_limit_for, decide_positions

_MOST_SEEDS: Final = 10
_OTHERS: Final = 16
# Bytes a member that are kept of it besides its row: patch, channel, whether it is nominal; and of a nominal patch.
_MEMBER_IDS, _NOMINAL_IDS = 13, 32


@dataclass(frozen=True)
class FitPlan:
    """What a fit is expected to take.

    Attributes:
        images: how many there are. patches: of an image. dimensions: values in a descriptor (with position channels,
            if they may come into use).
        smallest, largest: (height, width) in pixels of the images that were looked at.
        measured_images: how many were described for this plan.
        join_rate: share of an image's patches that join a channel.
        members: patches that are kept before the filters, seed images' included; the model has at most as many.
        memory: bytes by part: "process" (this process with its network, after one image), "seeds" (their descriptors
            and what is prepared of them), "image" (one image at a time), "limit" (what ``memory_limit`` allows), "used"
            (what of it the fit will use); "peak" is process + seeds + image + used.
        disk: bytes by part: "spool" (at its largest; with ``spool``, or where ``memory_limit`` is outgrown),
            "model", "final_model" (saved with ``final=True``), and "peak": spool and model on one disk, while the model
            is saved and the spool still there. How many members are nominal cannot be told beforehand: what is not is
            copied then, and comes on top, unless the model is final.
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
        """Of all stages."""
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


def plan_fit(
    source: ImageSource,
    parameters: Parameters,
    geometry: Geometry,
    network: Describer,
    limit: int,
    *,
    seeds: Any = None,
    explicit_limit: bool = False,
    tell: Callable[[str, int, int], None],
) -> FitPlan:
    """Measures a few images and says what a fit of all will take; see `InReaCh.plan`.

    ``explicit_limit``: whether the caller has set ``limit``; one that the fit would refuse is then refused here.
    """
    p, count = parameters, len(source)
    check_enough(count)
    chosen = (
        choose_seeds(count, p.assoc_depth, p.seed_selection, p.random_state)
        if seeds is None
        else given_seeds(seeds, source.names, range(count))
    )
    n_seeds = len(chosen)
    if explicit_limit:
        check_limit_for(network, p, limit, n_seeds, count)
    measured_seeds = _some(chosen, _MOST_SEEDS).tolist()
    others = _some(np.setdiff1d(np.arange(count), chosen), _OTHERS).tolist()
    look = _Look(source, p, geometry, network, tell, len(measured_seeds) + len(others))

    first = look.rows(measured_seeds[0])  # also warms up what is made once
    process = resident_bytes()
    look.reading, look.describing = 0.0, 0.0
    seed_rows = np.stack([first, *(look.rows(number) for number in measured_seeds[1:])])
    patches, dim = first.shape
    before = resident_bytes()
    places = np.arange(len(seed_rows), dtype=np.int64)
    associator = Associator(places, seed_rows, backend=p.kernel_backend)
    rates: list[float] = []
    kept: list[FloatArray] = [seed_rows.reshape(-1, dim)]
    associating = summing = 0.0
    for number in others or measured_seeds[1:]:
        rows = look.rows(number)
        found = members_of(associator, len(places) + number, rows, is_seed=False, whole=False)
        associating += found.seconds[1]
        rates.append(len(found.patch) / patches)
        kept.append(found.rows)
        summing += _summing(found.rows, p.kernel_backend)
    prepared = max(0, resident_bytes() - before)
    join_rate = float(np.mean(rates))
    members = n_seeds * patches + round((count - n_seeds) * join_rate * patches)
    bank_rows = np.concatenate(kept)
    index_bytes, index_seconds, search_seconds = _searching(bank_rows, first, p.kernel_backend)

    budget, row_bytes = Budget(limit), 4 * dim
    inputs = count * p.image_size[0] * p.image_size[1] * 3
    rest = round(min(p.threshold_images, count) * (1 - join_rate) * patches) * row_bytes
    member_bytes = members * row_bytes
    on_disk = member_bytes > budget.members
    index = round(index_bytes * members / len(bank_rows))
    ids = _NOMINAL_IDS * members + index
    n_read = max(1, look.read)
    n_looked = max(1, len(rates))
    seeds_bytes = n_seeds * patches * row_bytes
    memory = {
        "process": process,
        "seeds": seeds_bytes + round(prepared * n_seeds / len(seed_rows)),
        "image": 3 * patches * row_bytes,
        "limit": limit,
        "used": min(limit, inputs + 2 * member_bytes + rest + ids),
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
    return FitPlan(
        images=count,
        patches=patches,
        dimensions=dim,
        smallest=min(look.sizes, key=lambda size: size[0] * size[1]),
        largest=max(look.sizes, key=lambda size: size[0] * size[1]),
        measured_images=look.done,
        join_rate=join_rate,
        members=members,
        memory=memory,
        disk=disk,
        seconds={
            "read": look.reading / n_read * count,
            "align": _aligning(look.inputs, p) / look.done * count,
            "describe": look.describing / n_read * count,
            "associate": associating / n_looked * count,
            "filter": summing / n_looked * count,
            "index": index_seconds * members / len(bank_rows),
            "threshold": search_seconds * min(p.threshold_images, count),
        },
    )


class _Look:
    """Reads and describes images one at a time, and keeps the time."""

    def __init__(
        self,
        source: ImageSource,
        p: Parameters,
        geometry: Geometry,
        network: Describer,
        tell: Callable[[str, int, int], None],
        total: int,
    ) -> None:
        self._source, self._p, self._geometry, self._network = source, p, geometry, network
        self._tell, self._total = tell, total
        self.sizes: list[tuple[int, int]] = []
        self.inputs: list[UInt8Array] = []
        self.reading = self.describing = 0.0
        self.read = -1  # the first is not counted
        self.done = 0

    def rows(self, number: int) -> FloatArray:
        """An image's descriptors, (P, D), with position channels where they may come into use."""
        begin = time.perf_counter()
        image = self._load(number)
        self.sizes.append((int(image.shape[0]), int(image.shape[1])))
        pixels = self._geometry.apply(image)
        self.inputs.append(pixels)
        read = time.perf_counter()
        rows = in_memory(described_rows(self._network, pixels, None, self._source.names[number]))
        if self._p.position != "never":
            rows = np.concatenate([rows, np.zeros((len(rows), 2), np.float32)], axis=1)
        self.reading += read - begin
        self.describing += time.perf_counter() - read
        self.read += 1
        self.done += 1
        self._tell("plan", self.done, max(self._total, self.done))
        return rows

    def _load(self, number: int) -> UInt8Array:
        """The image, or the next that can be read: a plan need not stop at a broken one."""
        error: ImageError | None = None
        for step in range(len(self._source)):
            try:
                return self._source.load((number + step) % len(self._source))
            except ImageError as problem:
                error = error or problem
        assert error is not None
        raise error


def _aligning(inputs: list[UInt8Array], p: Parameters) -> float:
    """Seconds of the position test of these images, and of turning them where it fails and alignment is asked for."""
    begin = time.perf_counter()
    decide_positions(inputs, p, silent)
    return time.perf_counter() - begin


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
    channel_sums.add_rows(rows, slots, sums, backend=backend)
    channel_sums.distances(rows, slots, sums, backend=backend)
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
    """Memory that this process has now; 0 where the system does not tell."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


def _duration(seconds: float) -> str:
    parts: Sequence[tuple[float, str]] = ((3600, "h"), (60, "min"))
    for size, unit in parts:
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"
