"""The order of a fit: read, test positions, describe the seeds, let one image after the other join, filter, score.

One pass over the descriptors: an image meets the seed images alone, so that they are kept and the others stream by.
Of each image stay the patches that joined a channel; the rest is dropped at once (but for the few images that the
threshold is chosen from). Network inputs, members and that rest are in memory within `Budget`'s shares and in files
beyond, so that memory does not grow with the number of images.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..array_types import FloatArray, IndexArray, UInt8Array
from ..errors import DegenerateDataError, ImageError, MemoryLimitError, SpoolImagesChangedError, TooFewImagesError
from ..images.alignment import Alignment, MeanImage, align_images, rotate, transpose_score
from ..images.preprocess import Geometry
from ..images.source import ImageSource
from ..kernels import get_gpu_memory_limit
from ..memory import format_bytes
from ..method.association import Associator, ImageMembers, choose_seeds, given_seeds, members_of
from ..method.channels import MemberRows
from ..method.descriptors import described_rows, position_channels
from ..method.threshold import ranked_images, sample_images
from ..parameters import Parameters
from ..storage.inputs import InputStore, digest_array, input_digest
from ..storage.members import MemberStore
from ..storage.row_split import FILTER_PARAMETERS
from ..storage.spool import Spool
from ..storage.workspace import Workspace
from .growth_state import RESERVE, GrowthState, whole_image
from .image_job import ImageAssociation, ImageTask
from .nominate import Fitted, Progress, nominate
from .report import FitReport

if TYPE_CHECKING:
    from ..backbones import Backbone


# What a spool's configuration leaves out: parameters on which its data do not depend, so that a fit whose filters
# left no channel can be gone on from with others. (Where the filters are done, theirs are on record: placement.py.)
_WITHOUT_EFFECT = ("batch_size", "backend", *FILTER_PARAMETERS, "score", "distance", "smoothing_sigma")


@dataclass(frozen=True)
class Network:
    """What a fit needs of the estimator's network.

    Attributes:
        backbone: gives it, loaded on first use.
        describe: uint8 (B, H, W, 3) network inputs to descriptors without positions, float32 (B, P, dim).
        grid: the grid (h, w) of so many patches.
        direct: whether ``describe`` is the backbone and the kernels alone, and nothing stands before them.
    """

    backbone: Callable[[], Backbone]
    describe: Callable[[UInt8Array], FloatArray]
    grid: Callable[[int], tuple[int, int]]
    direct: bool = False


@dataclass(frozen=True)
class Reading:
    """The training images, read: which of them (numbers of the source), and which were passed over (names)."""

    inputs: InputStore
    used: list[int]
    skipped: list[str]


def fit_images(
    source: ImageSource | StoredImages,
    parameters: Parameters,
    geometry: Geometry,
    network: Network,
    workspace: Workspace,
    executor: Any,
    *,
    seeds: Any = None,
    skip_bad: bool = False,
    explicit_limit: bool = False,
    tell: Progress,
) -> Fitted:
    """A whole fit of images; see `InReaCh.fit`.

    Args:
        source: the images. parameters, geometry, network: the estimator's.
        workspace: a `Spool` is gone on from, if it holds a fit.
        executor: runs `ImageAssociation` over the images.
        explicit_limit: whether the caller has set the memory limit: it is then checked before anything is done.
    """
    p = parameters
    report = FitReport()
    report.counts.update(images=len(source), skipped=0)
    check_enough(len(source))
    if explicit_limit:
        depth = p.assoc_depth if seeds is None else np.size(seeds)
        check_limit_for(network, p, workspace.budget.limit, min(depth, len(source)), len(source))
    if isinstance(workspace, Spool):
        workspace.begin(_configuration(p, network.backbone(), seeds, skip_bad))
    with report.stage("read"):
        reading = read_images(source, p, geometry, skip_bad, workspace, tell)
    inputs, names = reading.inputs, [source.names[i] for i in reading.used]
    report.counts.update(skipped=len(reading.skipped), skipped_names=reading.skipped)
    if isinstance(workspace, Spool):
        _check_same_images(workspace, inputs, names, reading.skipped)
    check_enough(len(inputs))
    digests = inputs.digests
    check_different(digests, "images", "training images")
    seed_images = (
        choose_seeds(len(inputs), p.assoc_depth, p.seed_selection, p.random_state)
        if seeds is None
        else given_seeds(seeds, source.names, reading.used)
    )
    report.counts["seed_images"] = seed_images.tolist()
    with report.stage("align"):
        alignment, positions = decide_positions(inputs, p, tell)
    turned = turner(alignment)
    with report.stage("describe"):
        seed_rows, channels, grid = _describe_seeds(inputs, names, seed_images, turned, positions, p, network, tell)
    patches = grid[0] * grid[1]
    report.counts["patches"] = len(inputs) * patches
    sampled = sample_images(digests, p.threshold_images, p.random_state)
    store = MemberStore(workspace, seed_rows.shape[2], patches, len(inputs), sampled)
    spec = image_association(seed_images, seed_rows, channels, p, network)
    is_seed, is_sampled = set(seed_images.tolist()), set(sampled.tolist())

    def tasks() -> Iterator[ImageTask]:
        for i in range(store.done, len(inputs)):
            pixels = None if i in is_seed else turned(inputs[i], i)
            yield ImageTask(i, pixels, i in is_sampled, names[i])

    gather(executor.run(spec, tasks()), store, len(inputs), report, tell)
    del spec, seed_rows
    members = store.members(seed_images)
    rest_ends = np.cumsum(patches - members.counts[sampled])

    def image_rows(image: int, rows: MemberRows) -> FloatArray:
        place = int(np.searchsorted(sampled, image))
        end, length = int(rest_ends[place]), patches - int(members.counts[image])
        return whole_image(members, rows, image, store.rest.read(end - length, end))

    done = nominate(members, store.rows, sampled, image_rows, grid, p, workspace, report, tell)
    store.close()
    growth = GrowthState(
        members,
        done.selection.nominal,
        done.others,
        digests,
        inputs.finish(),
        alignment.searched,
        np.empty(0, np.int64),
        np.empty((0, store.rows.dim), np.float32),
    )
    return Fitted(done.nominal, grid, names, seed_images, positions, alignment, done.scores, sampled, report, growth)


def fit_rows(
    x: FloatArray,
    grid: tuple[int, int],
    parameters: Parameters,
    workspace: Workspace,
    report: FitReport,
    *,
    seeds: Any = None,
    explicit_limit: bool = False,
    tell: Progress,
) -> Fitted:
    """A whole fit of (N, P, D) descriptors; see `InReaCh.fit_descriptors`."""
    p = parameters
    n_images, patches, dim = x.shape
    names = [f"x[{i}]" for i in range(n_images)]
    report.counts.update(images=n_images, skipped=0, skipped_names=[])
    check_enough(n_images)
    depth = p.assoc_depth if seeds is None else np.size(seeds)
    if explicit_limit:
        check_limit(workspace.budget.limit, min(depth, n_images), patches, dim, n_images)
    with report.stage("read"):
        digests = digest_array([input_digest(rows) for rows in x])
    check_different(digests, "x", "images' descriptors")
    seed_images = (
        choose_seeds(n_images, p.assoc_depth, p.seed_selection, p.random_state)
        if seeds is None
        else given_seeds(seeds, names, range(n_images))
    )
    report.counts["seed_images"] = seed_images.tolist()
    report.counts["patches"] = n_images * patches
    sampled = sample_images(digests, p.threshold_images, p.random_state)
    kept = np.sort(ranked_images(digests, p.random_state)[: p.threshold_images + RESERVE])
    store = MemberStore(workspace, dim, patches, n_images, kept)
    associator = Associator(seed_images, x, pairs=p.assoc_pairs, backend=p.kernel_backend)
    is_seed, is_kept = set(seed_images.tolist()), set(kept.tolist())
    found = (members_of(associator, i, rows, is_seed=i in is_seed, whole=i in is_kept) for i, rows in enumerate(x))
    gather(found, store, n_images, report, tell)
    del associator
    members = store.members(seed_images)
    done = nominate(members, store.rows, sampled, lambda i, _: x[i], grid, p, workspace, report, tell)
    growth = GrowthState(members, done.selection.nominal, done.others, digests, None, None, kept, store.rest.finish())
    return Fitted(done.nominal, grid, names, seed_images, False, None, done.scores, sampled, report, growth)


# --------------------------------------------------------------------------------------------------- its steps


class StoredImages:
    """Network inputs of an earlier fit, to be fitted again as they are; like an `ImageSource`.

    Args:
        inputs: uint8 (n, H, W, 3), or anything that gives them by number. names: one each.
    """

    def __init__(self, inputs: Any, names: Sequence[str]) -> None:
        self.names = list(names)
        self._inputs = inputs

    def __len__(self) -> int:
        return len(self.names)

    def input(self, number: int) -> UInt8Array:
        """The network input of an image."""
        image: UInt8Array = self._inputs[number]
        return image


def network_input(source: ImageSource | StoredImages, number: int, geometry: Geometry) -> UInt8Array:
    """An image as the network sees it, uint8 (H, W, 3); ImageError where it cannot be had."""
    return source.input(number) if isinstance(source, StoredImages) else geometry.apply(source.load(number))


def read_images(
    source: ImageSource | StoredImages,
    p: Parameters,
    geometry: Geometry,
    skip_bad: bool,
    workspace: Workspace,
    tell: Progress,
) -> Reading:
    inputs = InputStore(workspace, p.image_size, len(source))
    used: list[int] = []
    skipped: list[str] = []
    for i in range(len(source)):
        try:
            image = network_input(source, i, geometry)
        except ImageError:
            if not skip_bad:
                raise
            skipped.append(source.names[i])
        else:
            inputs.append(image)
            used.append(i)
        tell("read", i + 1, len(source))
    return Reading(inputs, used, skipped)


def decide_positions(
    inputs: Any, p: Parameters, tell: Progress, known: IndexArray | None = None
) -> tuple[Alignment, bool]:
    """Position test and alignment (supplement D) of network inputs: what was found, and whether positions are used.

    ``inputs`` has a length and can be gone over several times; ``known`` are angles found before (`align_images`).
    """
    mean = MeanImage()
    for image in inputs:
        mean.add(image)
    score = transpose_score(mean.mean)
    if p.align == "auto" and p.position != "never" and score <= p.transpose_threshold:
        alignment = align_images(
            inputs, threshold=p.transpose_threshold, score_before=score, known=known, progress=tell
        )
    else:
        none = np.zeros(len(inputs), dtype=np.int64)
        alignment = Alignment(score, None, p.transpose_threshold, False, none, None)
    return alignment, p.position == "always" or (p.position == "auto" and alignment.positions_consistent)


def turner(alignment: Alignment) -> Callable[[UInt8Array, int], UInt8Array]:
    """What turns training image number i, where alignment is kept."""

    def turned(image: UInt8Array, number: int) -> UInt8Array:
        return rotate(image, int(alignment.angles[number])) if alignment.kept else image

    return turned


def image_association(
    seed_images: IndexArray, seed_rows: FloatArray, channels: FloatArray | None, p: Parameters, network: Network
) -> ImageAssociation:
    """The work for each image, ready to be sent to workers."""
    import torch

    return ImageAssociation(
        seed_images,
        seed_rows,
        channels,
        p.assoc_pairs,
        p.dim,
        p.neighbourhood,
        p.kernel_backend,
        network.backbone(),
        torch.get_num_threads(),
        None if network.direct else network.describe,
        get_gpu_memory_limit(),
    )


def _describe_seeds(
    inputs: InputStore,
    names: list[str],
    seed_images: IndexArray,
    turned: Callable[[UInt8Array, int], UInt8Array],
    positions: bool,
    p: Parameters,
    network: Network,
    tell: Progress,
) -> tuple[FloatArray, FloatArray | None, tuple[int, int]]:
    """The seed images' descriptors (S, P, D), the position channels (P, 2) or None, and the grid."""
    out: FloatArray | None = None
    channels: FloatArray | None = None
    grid = (0, 0)
    for slot, image in enumerate(seed_images.tolist()):
        rows = described_rows(network.describe, turned(inputs[image], image), None, names[image])
        if out is None:
            grid = network.grid(len(rows))
            channels = position_channels(grid, p.position_weight) if positions else None
            out = np.empty((len(seed_images), len(rows), rows.shape[1] + (2 if positions else 0)), np.float32)
        out[slot, :, : rows.shape[1]] = rows
        if channels is not None:
            out[slot, :, rows.shape[1] :] = channels
        tell("describe", slot + 1, len(seed_images))
    assert out is not None
    return out, channels, grid


def gather(
    results: Iterator[ImageMembers], store: MemberStore, n_images: int, report: FitReport, tell: Progress
) -> None:
    """Takes in what comes of the images; the time it takes is parted as the workers parted theirs."""
    begin = time.perf_counter()
    describing = associating = 0.0
    try:
        for found in results:
            describing += found.seconds[0]
            associating += found.seconds[1]
            store.append(found)
            tell("associate", store.done, n_images)
    finally:
        if isinstance(results, Generator):
            results.close()  # ends the workers at once where something failed
    wall = time.perf_counter() - begin
    share = describing / (describing + associating) if describing else 0.0
    if describing:
        report.seconds["describe"] = report.seconds.get("describe", 0.0) + wall * share
    report.seconds["associate"] = wall * (1.0 - share)


def check_enough(count: int) -> None:
    """Raises TooFewImagesError where there is nothing to compare."""
    if count < 2:
        raise TooFewImagesError(
            f"images: {count} usable image; InReaCh compares images with each other and needs at least 2 "
            "(and more than min_channel_length to form a channel)"
        )


def check_different(digests: UInt8Array, argument: str, what: str) -> None:
    """Raises DegenerateDataError where all images are one."""
    if (digests == digests[0]).all():
        raise DegenerateDataError(
            f"{argument}: all {len(digests)} {what} are identical, so that nothing can be learnt "
            "from their differences; give different images"
        )


def least_limit(seeds: int, patches: int, dim: int, n_images: int) -> int:
    """Bytes of ``memory_limit`` that a fit needs at least: the members' numbers, and some sums of the filters.

    Were every patch a member, their numbers would take 24 bytes each; the sums can be made in thirty-two goes.
    """
    return 24 * patches * n_images + seeds * patches * dim * 8 * 8 // (3 * 32) + 4 * patches * dim


def check_limit(limit: int, seeds: int, patches: int, dim: int, n_images: int) -> None:
    """Raises MemoryLimitError where the limit is too small."""
    least = least_limit(seeds, patches, dim, n_images)
    if limit < least:
        raise MemoryLimitError(
            f"memory_limit: {format_bytes(limit)} is too little for {n_images} images of {patches} patches "
            f"with {seeds} seed images; give at least {format_bytes(least)} ({least}), or lower assoc_depth"
        )


def check_limit_for(network: Network, parameters: Parameters, limit: int, seeds: int, n_images: int) -> None:
    """The same before the first image is described: position channels may come to its descriptors."""
    _, h, w = network.backbone().level_shapes(*parameters.image_size)[0]
    check_limit(limit, seeds, h * w, parameters.dim + 2, n_images)


# ------------------------------------------------------------------------------------------------------ resuming


def _configuration(p: Parameters, backbone: Backbone, seeds: Any, skip_bad: bool) -> dict[str, Any]:
    """Everything that a spool's data depend on besides the images."""
    import torch

    from .._version import __version__

    parameters = {name: value for name, value in p.as_dict().items() if name not in _WITHOUT_EFFECT}
    return {
        **parameters,
        "backbone_fingerprint": backbone.fingerprint,
        "seeds": None if seeds is None else [str(seed) for seed in np.atleast_1d(np.asarray(seeds, dtype=object))],
        "skip_bad": skip_bad,
        "torch": str(torch.__version__),
        "torch_threads": torch.get_num_threads(),
        "version": __version__,
    }


def _check_same_images(spool: Spool, inputs: InputStore, names: list[str], skipped: list[str]) -> None:
    """Puts the images on record, or holds them against the record of an earlier process."""
    digests = [digest.tobytes().hex() for digest in inputs.digests]
    records = spool.of_kind("read")
    if not records:
        spool.add({"kind": "read", "names": names, "skipped": skipped, "digests": digests})
        return
    before = dict(zip(records[0]["names"], records[0]["digests"], strict=True))
    now = dict(zip(names, digests, strict=True))
    changed = [(name, "is there, and was not") for name in names if name not in before]
    changed += [
        (name, "cannot be read, and could be" if name in skipped else "is missing, and was there")
        for name in before
        if name not in now
    ]
    changed += [(name, "is another image than it was") for name in names if before.get(name, now[name]) != now[name]]
    if not changed and (records[0]["names"], records[0]["digests"], records[0]["skipped"]) != (names, digests, skipped):
        changed = [(names[0], "and others are in another order than they were")]
    if changed:
        name, what = changed[0]
        more = f" (and {len(changed) - 1} more)" if len(changed) > 1 else ""
        raise SpoolImagesChangedError(
            f"{name}: {what} when the spool {spool.folder} was begun{more}; give the same images to resume, or remove "
            "the spool and begin again"
        )
