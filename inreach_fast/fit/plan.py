"""What a fit will take, or adding images to a model: memory, disk and time, estimated from a few images.

The seed images (at most ten of them) and sixteen other images are described, associated and filtered, and what is found
is scaled up. Bytes follow from the share of patches that join a channel, and from the share of these that the filters
leave, which is where the estimate can be wrong. Seconds are those of this machine with its present load.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from ..array_types import Array, FloatArray, IndexArray, UInt8Array
from ..errors import ImageError, NoChannelsError
from ..executors import LocalExecutor, ProcessExecutor, RayExecutor
from ..images.alignment import rotate
from ..images.preprocess import geometry_of
from ..images.source import ImageSource
from ..kernels import Bank, backend_of, nearest
from ..kernels.registry import cpu_backend
from ..method.association import Associator, ImageMembers, given_seeds, members_of
from ..method.channels import ChannelFilters, Members, select_members
from ..method.descriptors import DescriptorSpace, described_rows, in_memory
from ..method.projection import SAMPLE_IMAGES, Projection
from ..parameters import Parameters
from ..storage.partition import BLOCK_BYTES
from ..storage.thumbnails import thumbnail
from ..storage.workspace import Budget
from ..system.memory import format_bytes
from ..system.progress import no_progress
from .context import FitContext
from .limits import NUMBERS_OF_MEMBER, check_enough, check_limit, check_limit_for_images
from .reading import decide_positions
from .result import FitResult

_MOST_SEEDS: Final = 10
_OTHERS: Final = 16
_OF_PROJECTION: Final = 3
# Bytes in a model file: of a member besides its row (patch, channel, whether it is nominal), of a nominal patch (where
# it was seen, its channel), of an image (digest, count, name), and of all else in the header.
_MEMBER_IDS, _NOMINAL_IDS, _IMAGE_IDS, _HEADER = 13, 32, 100, 8192
_SPOOL_IDS: Final = 16
_SIZE_BYTES: Final = 16  # of an image's height and width
# In memory: of a member, while images are associated.
_NUMBERS_AT_FIRST: Final = 12


@dataclass(frozen=True)
class FitPlan:
    """What a fit, or adding images, is expected to take.

    Attributes:
        images: their number; with images that are added, the old ones included. patches: of an image. dimensions:
            values in a descriptor (with position channels, if they are used).
        smallest, largest: (height, width) in pixels of the measured images.
        measured_images: how many were described for this plan.
        join_rate: share of an image's patches that join a channel.
        members: patches that are kept before the filters, the seed images' included.
        nominal: those that the filters leave, the model's patches.
        workers: processes beside this one that describe and associate; 0: none, None: as many as the Ray cluster has
            room for.
        memory: bytes by part: "process" (this process with its network, after one image), "seeds" (their descriptors
            and search structures), "image" (one image at a time), "limit" (``memory_limit``), "used" (what of it is
            used when most memory is), "numbers" (of the members, beyond the limit), "worker" (one worker process, 0
            without); "peak" is process + seeds + image + used + numbers, and the workers if they are processes of this
            machine.
        disk: bytes by part: "spool" (files beside the model, at their largest; with ``spool``, or if ``memory_limit``
            is exceeded), "model", "final_model" (saved with ``final=True``), "peak" and "final_peak": spool and model
            on one disk, while the model is saved.
        seconds: by stage; with workers of a cluster whose number is not known, those of one.
    """

    images: int
    patches: int
    dimensions: int
    smallest: tuple[int, int]
    largest: tuple[int, int]
    measured_images: int
    join_rate: float
    members: int
    nominal: int
    workers: int | None
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
        lines = [
            f"images   {self.images:,} of {sizes} pixels; {self.patches:,} patches of {self.dimensions} values",
            f"joining  {self.join_rate:.1%} of the patches join a channel ({self.measured_images} measured), "
            f"{self.members:,} are kept before the filters, about {self.nominal:,} after them",
            f"memory   peak {memory['peak']}: process and network {memory['process']}, seed images "
            f"{memory['seeds']}, one image {memory['image']}, {memory['used']} within the limit of "
            f"{memory['limit']}, and {memory['numbers']} of numbers",
            f"disk     model {disk['model']}, or {disk['final_model']} if final; spool up to {disk['spool']}; both on "
            f"one disk {disk['peak']}, or {disk['final_peak']} if final",
            f"time     about {_duration(self.total_seconds)}: {stages}",
        ]
        if self.workers != 0:
            unknown = "as many as the cluster has room for, in the time only one"
            count = unknown if self.workers is None else f"{self.workers:,}"
            lines.append(f"workers  {count}; each takes {memory['worker']} of memory")
        return "\n".join(lines)


def plan_fit(context: FitContext, source: ImageSource) -> FitPlan:
    """Measures a few images and estimates what a fit of all will take; see `InReaCh.plan`."""
    p, count = context.parameters, len(source)
    check_enough(count)
    check_limit_for_images(context, count)
    if p.association == "all":
        numbers = _some(np.arange(count), _OTHERS).tolist()
        return _plan_of_all(context, _Measurement(context, source, numbers), count)
    chosen = _any_seeds(context, source.names)
    measured_seeds = _some(chosen, _MOST_SEEDS).tolist()
    others = _some(np.setdiff1d(np.arange(count), chosen), _OTHERS).tolist()
    measured = _Measurement(context, source, measured_seeds + others)

    slots = np.arange(len(measured_seeds), dtype=np.int64)
    seed_rows = np.stack([measured.first, *(measured.rows(slot) for slot in slots[1:].tolist())])
    before = resident_bytes()
    associator = Associator(slots, seed_rows, pairs=p.assoc_pairs, backend=backend_of(p))
    of_seeds = [members_of(associator, slot, rows, is_seed=True, whole=False) for slot, rows in enumerate(seed_rows)]
    of_others = [
        members_of(associator, place, measured.rows(place), is_seed=False, whole=False)
        for place in range(len(slots), measured.count)
    ]
    prepared = max(0, resident_bytes() - before)

    patches = len(measured.first)
    join_rate = float(np.mean([np.count_nonzero(found.joined >= 0) / patches for found in of_others or of_seeds[1:]]))
    sample = _Sample(p, slots, patches, [*of_seeds, *of_others], count)
    per_seed, per_other = sample.nominal_per_image(len(slots))
    rest = count - len(chosen)
    return _plan(
        context,
        measured,
        sample,
        images=count,
        new=count,
        join_rate=join_rate,
        members=len(chosen) * patches + round(rest * join_rate * patches),
        nominal=round(len(chosen) * per_seed + rest * per_other),
        channels=len(chosen) * patches,
        seeds=len(chosen) * patches * sample.row_bytes + round(prepared * len(chosen) / len(seed_rows)),
        # A seed image's patches are members, all of them.
        rest=round(min(p.threshold_images, count) * rest / count * (1 - join_rate) * patches),
    )


def plan_growth(context: FitContext, current: FitResult, source: ImageSource) -> FitPlan:
    """Measures a few of the new images and estimates what adding all will take; see `InReaCh.plan_partial_fit`."""
    p, state = context.parameters, current.growth
    old, count = len(current.image_names), len(source)
    dim, patches = int(current.nominal.patches.shape[1]), state.members.patches
    check_limit(context, len(current.seed_images), patches, dim, old + count)
    numbers = _some(np.arange(count), _OTHERS).tolist()
    measured = _Measurement(context, source, numbers, current)
    if p.association == "all":  # all images are fitted again
        return _plan_of_all(context, measured, old + count)
    before = resident_bytes()
    seed_rows = state.members.seed_rows(state.rows(current.nominal.patches))
    slots = np.arange(len(seed_rows), dtype=np.int64)
    associator = Associator(slots, seed_rows, pairs=p.assoc_pairs, backend=backend_of(p))
    found = [
        members_of(associator, len(slots) + i, rows, is_seed=False, whole=False)
        for i, rows in enumerate([measured.first, *map(measured.rows, range(1, measured.count))])
    ]
    join_rate = float(np.mean([len(one.patch) / patches for one in found]))
    new = round(count * join_rate * patches)
    sample = _Sample(p, slots, patches, found, old + count, fitted=current)
    return _plan(
        context,
        measured,
        sample,
        images=old + count,
        new=count,
        join_rate=join_rate,
        members=len(state.members) + new,
        nominal=round(len(current.nominal) * (1 + new / len(state.members))),
        channels=len(slots) * patches,
        seeds=max(seed_rows.nbytes, resident_bytes() - before),
        rest=0,  # of the threshold's sample the images are described again
    )


def _plan_of_all(context: FitContext, measured: _Measurement, images: int) -> FitPlan:
    """The plan of a fit that keeps the patches of all images, or of ``bank_images``."""
    p, patches = context.parameters, len(measured.first)
    rows = [measured.first, *map(measured.rows, range(1, measured.count))]
    found = [members_of(None, i, one, is_seed=False, whole=False) for i, one in enumerate(rows)]
    kept = min(images, p.bank_images or images) * patches
    # The sample that the projection is found from, as float32 and as float64.
    sampled = 0 if p.pca_dim is None else min(images, SAMPLE_IMAGES) * patches * p.dim * 12
    return _plan(
        context,
        measured,
        _Sample(p, np.empty(0, np.int64), patches, found, images),
        images=images,
        new=images,
        join_rate=1.0,
        members=kept,
        nominal=kept,
        channels=0,
        seeds=sampled,
        rest=0,
    )


class _Sample:
    """The members of the measured images, filtered as those of all ``count`` images would be, or added to a model."""

    def __init__(
        self,
        p: Parameters,
        slots: IndexArray,
        patches: int,
        found: list[ImageMembers],
        count: int,
        *,
        fitted: FitResult | None = None,
    ) -> None:
        self.rows = np.concatenate([one.rows for one in found])
        self.row_bytes = 4 * self.rows.shape[1]
        self.counts = np.array([len(one.patch) for one in found], dtype=np.int64)
        self.associating = float(np.mean([one.seconds[1] for one in found]))
        self.summing = _summing(found[-1].rows, backend_of(p))
        self.chosen = np.ones(len(self.rows), dtype=bool)
        if fitted is None and p.association == "seeds":
            joined, patch = (np.concatenate([getattr(one, name) for one in found]) for name in ("joined", "patch"))
            filters = ChannelFilters.of(p)
            if filters.min_length is not None:  # a channel has as many members less as there are images less
                filters = replace(filters, min_length=filters.min_length * len(found) // count)
            try:
                members = Members(slots, patches, self.counts, patch, joined)
                self.chosen = select_members(members, self.rows, filters, 0).nominal
            except NoChannelsError:
                self.chosen[:] = False
        self.fitted = fitted

    def nominal_per_image(self, seeds: int) -> tuple[float, float]:
        """Nominal patches of a seed image and of another one, on average; the first ``seeds`` are the seeds."""
        counts = np.array([int(part.sum()) for part in np.split(self.chosen, np.cumsum(self.counts)[:-1])])
        return float(counts[:seeds].mean()), float(counts[seeds:].mean()) if len(counts) > seeds else 0.0

    def index(self, nominal: int, queries: FloatArray, backend: str) -> tuple[int, float, float]:
        """Bytes and seconds of an index of so many nominal patches, and seconds of one image's search in it."""
        some = self.rows[self.chosen]
        some = some if len(some) >= _FEW else self.rows
        if self.fitted is not None:
            some = np.array(self.fitted.nominal.patches[:_MOST_INDEXED])
        arrays, built, searched = _searching(some, queries, backend)
        count = len(some)
        if self.fitted is not None and self.fitted.nominal.index_arrays:
            arrays, count = self.fitted.nominal.index_arrays, len(self.fitted.nominal)
        fixed = sum(array.nbytes for name, array in arrays.items() if name.startswith("basis_"))
        of_rows = sum(array.nbytes for array in arrays.values()) - fixed
        size = 0 if nominal < _FEW else fixed + round(of_rows * nominal / count)
        return size, built * nominal / len(some), searched


_FEW: Final = 512
"""Rows below which no index is built."""
_MOST_INDEXED: Final = 16384
"""Rows of a model that are indexed to see how long that takes."""


def _plan(
    context: FitContext,
    measured: _Measurement,
    sample: _Sample,
    *,
    images: int,
    new: int,
    join_rate: float,
    members: int,
    nominal: int,
    channels: int,
    seeds: int,
    rest: int,
) -> FitPlan:
    """The plan, from what was measured; ``new`` of the ``images`` are read, ``rest``: rows kept for the threshold."""
    p, budget, row_bytes = context.parameters, context.workspace.budget, sample.row_bytes
    growing = new < images
    process, patches = measured.process, len(measured.first)
    index, index_seconds, search_seconds = sample.index(nominal, measured.first, backend_of(p))
    inputs = images * p.input_size[0] * p.input_size[1] * 3
    rows, nominal_rows, rest_rows = members * row_bytes, nominal * row_bytes, rest * row_bytes
    on_disk = rows > budget.members
    workers, at_once = _workers(context.executor)
    used, numbers = _largest_stage(budget, channels, members, rows, nominal_rows, inputs, rest_rows, index)
    memory = {
        "process": process,
        "seeds": seeds,
        "image": 3 * patches * row_bytes,
        "limit": budget.limit,
        "used": used,
        "numbers": numbers,
        "worker": 0 if workers == 0 else process + seeds + 3 * patches * row_bytes,
    }
    here = (workers or 0) if isinstance(context.executor, ProcessExecutor) else 0
    memory["peak"] = here * memory["worker"] + sum(
        memory[name] for name in ("process", "seeds", "image", "used", "numbers")
    )
    files = rows + min(BLOCK_BYTES, rows) if on_disk else 0 if growing else rows
    moved = index + (0 if growing else _SPOOL_IDS * members) if on_disk else 0
    ids = 0 if growing else _SPOOL_IDS * members
    final = nominal_rows + _NOMINAL_IDS * nominal + index + _IMAGE_IDS * images + _HEADER
    final += _SIZE_BYTES * images if p.thumbnails else 0
    thumbnails = round(measured.thumbnail * images) if p.thumbnails else 0
    disk = {
        "spool": files + rest_rows + ids + moved + (inputs if inputs > budget.inputs else 0),
        "model": final + rows - nominal_rows + _MEMBER_IDS * members + inputs + thumbnails,
        "final_model": final,
    }
    # A fit's model takes the nominal rows over; its spool no longer holds the block that is moved.
    less = (0 if growing else nominal_rows) + min(BLOCK_BYTES, rows) if on_disk else 0
    disk["peak"] = max(disk["spool"], disk["spool"] + disk["model"] - less)
    disk["final_peak"] = max(disk["spool"], disk["spool"] + disk["final_model"] - less)
    return FitPlan(
        images=images,
        patches=patches,
        dimensions=row_bytes // 4,
        smallest=min(measured.sizes, key=math.prod),
        largest=max(measured.sizes, key=math.prod),
        measured_images=measured.count,
        join_rate=join_rate,
        members=members,
        nominal=nominal,
        workers=workers,
        memory=memory,
        disk=disk,
        seconds={
            "read": measured.reading * new,
            "align": measured.aligning * images,
            "describe": measured.describing * new / at_once,
            "associate": sample.associating * new / at_once,
            "filter": sample.summing * images,
            "index": index_seconds,
            "threshold": search_seconds * min(p.threshold_images, images),
            **({"confirm": search_seconds * nominal / patches} if p.association == "all" else {}),
        },
    )


def _largest_stage(
    budget: Budget, channels: int, members: int, rows: int, nominal_rows: int, inputs: int, rest_rows: int, index: int
) -> tuple[int, int]:
    """Bytes within the memory limit, and of the members' numbers, in the stage that takes most."""
    held = min(inputs, budget.inputs) + min(rest_rows, budget.sample)
    if rows > budget.members:
        sums = min(rows // members * channels * 2, budget.sums)  # float64
        stages = [budget.members, sums, min(index, budget.index)]
    else:
        both = 2 * rows - nominal_rows
        stages = [rows, both, both + index]
    found = [
        (min(budget.limit, held + stage), each * members)
        for stage, each in zip(stages, (_NUMBERS_AT_FIRST, NUMBERS_OF_MEMBER, NUMBERS_OF_MEMBER), strict=True)
    ]
    return max(found, key=sum)


def _workers(executor: Any) -> tuple[int | None, int]:
    """How many workers there will be (None: not known), and how many of them work at the speed of this process."""
    if isinstance(executor, ProcessExecutor):
        return executor.size, min(executor.size, executor.usable)
    if isinstance(executor, RayExecutor):
        return executor.workers, executor.workers or 1
    return (0, 1) if isinstance(executor, LocalExecutor) else (None, 1)


class _Measurement:
    """Some images, read and tested for positions at once, described one at a time; and the time of each.

    Args:
        numbers: of the images in ``source``. fitted: the model that they are to be added to.
    """

    def __init__(
        self, context: FitContext, source: ImageSource, numbers: list[int], fitted: FitResult | None = None
    ) -> None:
        self._context, self.sizes = context, list[tuple[int, int]]()
        self._names = [source.names[number] for number in numbers]
        inputs = []
        begin = time.perf_counter()
        for number in numbers:
            image = _load(source, number)
            self.sizes.append((int(image.shape[0]), int(image.shape[1])))
            inputs.append(context.geometry.apply(image, source.names[number]))
        read = time.perf_counter()
        p = context.parameters
        geometry = geometry_of(p)
        files = [len(thumbnail(image, geometry, size)) for image, size in zip(inputs, self.sizes, strict=True)]
        self.thumbnail = float(np.mean(files)) + 8  # and where it ends
        thumbed = time.perf_counter()
        alignment, positions = decide_positions(inputs, p, no_progress)
        self.reading, self.aligning = (part / len(numbers) for part in (read - begin, time.perf_counter() - thumbed))
        if fitted is not None:
            alignment, positions = fitted.alignment or alignment, fitted.positions
            inputs = [alignment.apply(pixels)[0] if alignment.kept else pixels for pixels in inputs]
        elif alignment.kept:
            inputs = [rotate(pixels, int(degrees)) for pixels, degrees in zip(inputs, alignment.angles, strict=True)]
        self._inputs, self._positions = inputs, positions
        self._space: DescriptorSpace | None = None
        self._projection = None if fitted is None else fitted.projection
        self._times: list[float] = []
        self.first = self.rows(0)  # also does what is done only once
        self.process = resident_bytes()

    @property
    def count(self) -> int:
        """How many images."""
        return len(self._inputs)

    @property
    def describing(self) -> float:
        """Seconds of describing an image; the first one counts only if there is no other."""
        return float(np.mean(self._times[1:] or self._times))

    def rows(self, place: int) -> FloatArray:
        """An image's descriptors, (P, D), as a fit would keep them."""
        begin = time.perf_counter()
        raw = self._raw(place)
        if self._space is None:
            self._space = self._space_of(raw)
        described: FloatArray = self._space(raw)
        self._times.append(time.perf_counter() - begin)
        self._context.progress("plan", min(len(self._times), self.count), self.count)
        return described

    def _raw(self, place: int) -> FloatArray:
        pixels, name = self._inputs[place], self._names[place]
        return in_memory(described_rows(self._context.describer, pixels, DescriptorSpace(), name))

    def _space_of(self, rows: FloatArray) -> DescriptorSpace:
        p, projection = self._context.parameters, self._projection
        grid = self._context.describer.grid(len(rows))
        space = DescriptorSpace.of(p, grid, projection, positions=self._positions)
        if projection is None and p.pca_dim is not None and p.pca_dim < rows.shape[1]:
            some = [rows, *(self._raw(place) for place in range(1, min(self.count, _OF_PROJECTION)))]
            select = DescriptorSpace(cells=space.cells)
            space = replace(space, projection=Projection.fit(np.concatenate(list(map(select, some))), p.pca_dim))
        return space


def _load(source: ImageSource, number: int) -> UInt8Array:
    """The image, or the next one that can be read: a plan does not need every image."""
    error: ImageError | None = None
    for step in range(len(source)):
        try:
            return source.load((number + step) % len(source))
        except ImageError as problem:
            error = error or problem
    assert error is not None
    raise error


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


def _searching(rows: FloatArray, queries: FloatArray, backend: str) -> tuple[Mapping[str, Array], float, float]:
    """An index of the rows, the seconds that it takes, and those of one image's search."""
    bank = Bank(rows, np.zeros(len(rows), dtype=np.int64))
    begin = time.perf_counter()
    arrays = bank.index_arrays()
    built = time.perf_counter()
    nearest(queries, bank, backend=backend)
    return arrays, built - begin, time.perf_counter() - built


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
