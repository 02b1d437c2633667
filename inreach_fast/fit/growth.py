"""Images added to a fitted model, and images taken out of it: what a fit of the resulting set would give, bit for bit.

Why that is so, with the seed images given:

* An image's patches join channels by what the image and the seed images show; no other image has a say. Members of
  the images that stay are therefore those of before, and keep their order. (With ``assoc_pairs="later"`` an image
  meets the seed images before it: images that come are behind all of them, and images that go change no order.)
* Filters, search index and threshold depend on the members alone, in their order; they are made anew.
* The threshold's sample is drawn by what images show, not by their numbers (`threshold.ranked_images`).
* Whether positions are used, and whether images are turned, depends on all images: that is decided anew from the
  stored network inputs. Where the verdict changes, every descriptor changes, and a refit is needed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..array_types import FloatArray, IndexArray, UInt8Array
from ..errors import DescriptorsNeededError, RefitNeededError, SeedImageError, TooFewImagesError
from ..images.alignment import Alignment
from ..images.preprocess import Geometry
from ..images.source import ImageSource
from ..method.association import Associator, members_of
from ..method.channels import MemberRows, Members
from ..method.descriptors import Describer, described_rows, in_memory, position_channels
from ..method.threshold import ranked_images, sample_images
from ..parameters import Parameters
from ..storage.inputs import InputStore, digest_array, input_digest
from ..storage.members import MemberStore
from ..storage.row_log import RowLog
from ..storage.rows import ChainedRows
from ..storage.workspace import Workspace
from .growth_state import RESERVE, GrowthState, whole_image
from .image_job import ImageTask
from .nominate import Fitted, Nominated, Progress, nominate
from .pipeline import (
    check_different,
    check_enough,
    check_limit,
    decide_positions,
    gather,
    image_job_of,
    read_images,
    turner,
)
from .report import FitReport

RowsOf = Callable[[int], FloatArray | None]

_PLACEHOLDER = re.compile(r"(images|x)\[(\d+)\]")
_REFIT = "the model is as it was; fit all images anew, or give refit=True, which chooses new seed images"


@dataclass(frozen=True)
class Setting:
    """What growing needs besides the model and the images: the estimator's own, as in `fit_pipeline.fit_images`.

    Attributes:
        explicit_limit: whether the caller has set the memory limit: it is then checked before anything is done.
        Others as there.
    """

    parameters: Parameters
    geometry: Geometry
    network: Describer
    workspace: Workspace
    executor: Any
    tell: Progress
    explicit_limit: bool = False

    def check_limit(self, current: Fitted, images: int) -> None:
        """Raises MemoryLimitError where the limit is too small for a model of so many images."""
        if self.explicit_limit:
            members, dim = current.growth.members, int(current.nominal.patches.shape[1])
            check_limit(self.workspace.budget.limit, len(members.seed_images), members.patches, dim, images)


class ManyInputs:
    """Network inputs of several places, by number; images that go are left out."""

    def __init__(self, parts: Sequence[tuple[Any, Sequence[int]]]) -> None:
        self._places = [(inputs, number) for inputs, numbers in parts for number in numbers]

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, number: int) -> UInt8Array:
        inputs, place = self._places[number]
        return np.array(inputs[place])

    def __iter__(self) -> Iterator[UInt8Array]:
        return (self[number] for number in range(len(self)))


# ------------------------------------------------------------------------------------------------------ images


def add_images(current: Fitted, source: ImageSource, setting: Setting, *, skip_bad: bool) -> Fitted:
    """The model of all images: those of ``current``, then those of ``source``.

    Raises:
        RefitNeededError; ImageError, TooFewImagesError (no new image can be read), NonFiniteError, NoChannelsError,
        MemoryLimitError.
    """
    setting.check_limit(current, len(current.image_names) + len(source))
    new, names, report = read_added(current, source, setting, skip_bad=skip_bad)
    state, p, tell = current.growth, setting.parameters, setting.tell
    old = len(state.digests)
    inputs = ManyInputs([(state.inputs, range(old)), (new, range(len(new)))])
    known = None if state.angles is None else np.append(state.angles, np.full(len(new), -1))
    alignment = _same_verdict(current, inputs, setting, known)
    turned, channels = turner(alignment), _channels(current, p)
    rows = state.rows(current.nominal.patches)
    seed_rows = _seed_rows(state.members, rows)
    none = np.empty(0, np.int64)
    store = MemberStore(setting.workspace, rows.dim, state.members.patches, len(new), none)
    spec = image_job_of(state.members.seed_images, seed_rows, channels, p, setting.network)
    tasks = (ImageTask(old + i, turned(new[i], old + i), False, names[old + i]) for i in range(len(new)))
    gather(setting.executor.run(spec, tasks), store, len(new), report, tell)
    del spec, seed_rows
    members = _joined_members(state.members, store.members(none))
    chained = ChainedRows([(rows, 0, len(rows)), (store.rows, 0, len(store.rows))], rows.dim)
    digests = np.concatenate([state.digests, new.digests])
    with closing(new), closing(store):
        return _renewed(current, members, chained, digests, names, inputs, alignment, report, setting)


def read_added(
    current: Fitted, source: ImageSource, setting: Setting, *, skip_bad: bool
) -> tuple[InputStore, list[str], FitReport]:
    """The new images' network inputs, the names of all images, and a report that counts the new ones in."""
    report = FitReport(current.report.counts)
    with report.stage("read"):
        reading = read_images(source, setting.parameters, setting.geometry, skip_bad, setting.workspace, setting.tell)
    if not reading.used:
        raise TooFewImagesError(f"images: none of the {len(source)} images could be read; the model is as it was")
    before = int(report.counts["images"])
    skipped = [*report.counts["skipped_names"], *(_moved(name, before) for name in reading.skipped)]
    report.counts.update(images=before + len(source), skipped=len(skipped), skipped_names=skipped)
    names = [*current.image_names, *(_moved(source.names[i], before) for i in reading.used)]
    return reading.inputs, names, report


def forget_images(current: Fitted, numbers: IndexArray, setting: Setting) -> Fitted:
    """The model of the images that are left when ``numbers`` (ascending) go.

    Raises:
        SeedImageError, RefitNeededError, TooFewImagesError, DegenerateDataError, NoChannelsError, MemoryLimitError.
    """
    setting.check_limit(current, len(current.image_names) - len(numbers))
    left, names, report, members, rows = _without(current, numbers)
    state = current.growth
    digests = state.digests[left]
    check_different(digests, "ids", "images that would be left")
    if current.alignment is not None and current.alignment.kept and left[0] != 0:
        raise RefitNeededError(f"ids: {current.image_names[0]} is the image that all others were turned to; {_REFIT}")
    inputs = ManyInputs([(state.inputs, left.tolist())])
    # Angles are those to the first image: of another first image nothing is known.
    known = None if state.angles is None or left[0] != 0 else state.angles[left]
    alignment = _same_verdict(current, inputs, setting, known)
    return _renewed(current, members, rows, digests, names, inputs, alignment, report, setting)


def _same_verdict(current: Fitted, inputs: ManyInputs, setting: Setting, known: IndexArray | None) -> Alignment:
    """Position test and alignment of the resulting set, which must come out as before."""
    alignment, positions = decide_positions(inputs, setting.parameters, setting.tell, known)
    kept = current.alignment is not None and current.alignment.kept
    if alignment.kept != kept or positions != current.positions:
        verdict = "are no longer to be aligned" if kept and not alignment.kept else "are now to be aligned"
        if alignment.kept == kept:
            verdict = "now lie alike" if positions else "no longer lie alike"
        raise RefitNeededError(
            f"images: with this change the images {verdict} (transpose score {alignment.score_before:.0f}, threshold "
            f"{alignment.threshold:.0f}), so that every descriptor changes; {_REFIT}"
        )
    return alignment


def _renewed(
    current: Fitted,
    members: Members,
    rows: MemberRows,
    digests: UInt8Array,
    names: list[str],
    inputs: ManyInputs,
    alignment: Alignment,
    report: FitReport,
    setting: Setting,
) -> Fitted:
    """Filters, index and threshold of a model of images, whose members have changed."""
    p, network = setting.parameters, setting.network
    turned, channels = turner(alignment), _channels(current, p)

    def image_rows(image: int, _: MemberRows) -> FloatArray:
        described = in_memory(described_rows(network, turned(inputs[image], image), channels, names[image]))
        return described

    sampled = sample_images(digests, p.threshold_images, p.random_state)
    done = _nominated(current, members, rows, sampled, image_rows, report, setting)
    stored = InputStore(setting.workspace, p.image_size, len(inputs))
    for image in inputs:
        stored.append(image)
    growth = GrowthState(
        members,
        done.selection.nominal,
        done.others,
        digests,
        stored.finish(),
        alignment.searched,
        np.empty(0, np.int64),
        np.empty((0, rows.dim), np.float32),
    )
    return Fitted(
        done.nominal,
        current.grid,
        names,
        members.seed_images,
        current.positions,
        alignment,
        done.scores,
        sampled,
        report,
        growth,
    )


def _channels(current: Fitted, p: Parameters) -> FloatArray | None:
    return position_channels(current.grid, p.position_weight) if current.positions else None


# ------------------------------------------------------------------------------------------------- descriptors


def add_rows(current: Fitted, x: FloatArray, setting: Setting, rows_at_hand: RowsOf) -> Fitted:
    """The model of all images, the new ones' descriptors being (n, P, D).

    Args:
        rows_at_hand: the (P, D) descriptors of an image of the resulting set, where they are at hand.

    Raises:
        DescriptorsNeededError, NoChannelsError, MemoryLimitError.
    """
    state, p = current.growth, setting.parameters
    old = len(state.digests)
    setting.check_limit(current, old + len(x))
    report = FitReport(current.report.counts)
    report.counts["images"] += len(x)
    names = [*current.image_names, *(f"x[{old + i}]" for i in range(len(x)))]
    rows = state.rows(current.nominal.patches)
    seed_rows = _seed_rows(state.members, rows)
    associator = Associator(state.members.seed_images, seed_rows, pairs=p.assoc_pairs, backend=p.kernel_backend)
    none = np.empty(0, np.int64)
    store = MemberStore(setting.workspace, rows.dim, state.members.patches, len(x), none)
    found = (members_of(associator, old + i, image, is_seed=False, whole=False) for i, image in enumerate(x))
    gather(found, store, len(x), report, setting.tell)
    del associator, seed_rows
    members = _joined_members(state.members, store.members(none))
    chained = ChainedRows([(rows, 0, len(rows)), (store.rows, 0, len(store.rows))], rows.dim)
    digests = np.concatenate([state.digests, digest_array([input_digest(image) for image in x])])

    def whole_rows(image: int) -> FloatArray | None:
        return x[image - old] if image >= old else rows_at_hand(image)

    kept = {int(image): int(image) for image in state.kept_images}
    with closing(store):
        return _renewed_rows(current, members, chained, digests, names, kept, whole_rows, report, setting)


def forget_rows(current: Fitted, numbers: IndexArray, setting: Setting, rows_at_hand: RowsOf) -> Fitted:
    """The model of the images that are left when ``numbers`` (ascending) go; ``rows_at_hand`` as in `add_rows`.

    Raises:
        SeedImageError, DescriptorsNeededError, TooFewImagesError, DegenerateDataError, NoChannelsError,
        MemoryLimitError.
    """
    setting.check_limit(current, len(current.image_names) - len(numbers))
    left, names, report, members, rows = _without(current, numbers)
    state = current.growth
    digests = state.digests[left]
    check_different(digests, "ids", "images that would be left")
    place = {int(old): new for new, old in enumerate(left.tolist())}
    kept = {place[int(old)]: int(old) for old in state.kept_images if int(old) in place}
    return _renewed_rows(current, members, rows, digests, names, kept, rows_at_hand, report, setting)


def _renewed_rows(
    current: Fitted,
    members: Members,
    rows: MemberRows,
    digests: UInt8Array,
    names: list[str],
    kept: dict[int, int],
    whole_rows: RowsOf,
    report: FitReport,
    setting: Setting,
) -> Fitted:
    """Filters, index and threshold of a model of descriptors; ``kept`` images (number: the old one) have theirs."""
    p, state = setting.parameters, current.growth
    ranked = ranked_images(digests, p.random_state)[: p.threshold_images + RESERVE].tolist()
    sampled = np.sort(np.array(ranked[: p.threshold_images], dtype=np.int64))
    rest: dict[int, FloatArray] = {}
    for rank, image in enumerate(ranked):
        found = state.rest_of(kept[image]) if image in kept else _rest(members, image, whole_rows(image), digests)
        if found is None:
            if rank < p.threshold_images:
                raise DescriptorsNeededError(
                    f"x: the threshold is now to be chosen from {names[image]} as well, whose descriptors are not "
                    "kept; give those of all images of the model, x=(N, P, D) in their order"
                )
            break  # the reserve is shorter from here on
        rest[image] = found

    def image_rows(image: int, where: MemberRows) -> FloatArray:
        return whole_image(members, where, image, rest[image])

    done = _nominated(current, members, rows, sampled, image_rows, report, setting)
    order = sorted(rest)
    log = RowLog(
        setting.workspace,
        "rest",
        rows.dim,
        most_rows=sum(map(len, rest.values())),
        memory=setting.workspace.budget.sample,
    )
    for image in order:
        log.append(rest.pop(image))
    growth = GrowthState(
        members,
        done.selection.nominal,
        done.others,
        digests,
        None,
        None,
        np.array(order, dtype=np.int64),
        log.finish(),
    )
    return Fitted(
        done.nominal,
        current.grid,
        names,
        members.seed_images,
        False,
        None,
        done.scores,
        sampled,
        report,
        growth,
    )


def _rest(members: Members, image: int, rows: FloatArray | None, digests: UInt8Array) -> FloatArray | None:
    """The patches of an image that are no members; None where its descriptors are not at hand, or not the same."""
    if rows is None or input_digest(rows) != digests[image].tobytes():
        return None
    first, last = members.starts[image : image + 2].tolist()
    other = np.full(members.patches, True)
    other[members.patch[first:last]] = False
    rest: FloatArray = rows[other]
    return rest


# --------------------------------------------------------------------------------------------------- both kinds


def _nominated(
    current: Fitted,
    members: Members,
    rows: MemberRows,
    sampled: IndexArray,
    image_rows: Callable[[int, MemberRows], FloatArray],
    report: FitReport,
    setting: Setting,
) -> Nominated:
    report.counts["patches"] = len(members.counts) * members.patches
    report.counts["seed_images"] = members.seed_images.tolist()
    return nominate(
        members,
        rows,
        sampled,
        image_rows,
        current.grid,
        setting.parameters,
        setting.workspace,
        report,
        setting.tell,
    )


def _seed_rows(members: Members, rows: MemberRows) -> FloatArray:
    """The seed images' descriptors, (S, P, D): all their patches are members, in order."""
    starts = members.starts
    out = np.empty((len(members.seed_images), members.patches, rows.dim), np.float32)
    for slot, image in enumerate(members.seed_images.tolist()):
        out[slot] = rows.read(int(starts[image]), int(starts[image + 1]))
    return out


def _joined_members(first: Members, second: Members) -> Members:
    return Members(
        first.seed_images,
        first.patches,
        np.concatenate([first.counts, second.counts]),
        np.concatenate([first.patch, second.patch]),
        np.concatenate([first.joined, second.joined]),
    )


def _without(current: Fitted, numbers: IndexArray) -> tuple[IndexArray, list[str], FitReport, Members, ChainedRows]:
    """The images that are left, their names, a report without the others, and the members that stay."""
    state = current.growth
    members = state.members
    seeds = np.intersect1d(numbers, members.seed_images)
    if len(seeds):
        raise SeedImageError(
            f"ids: {current.image_names[int(seeds[0])]} is a seed image, with which all others were compared; {_REFIT}"
        )
    stays = np.full(len(members.counts), True)
    stays[numbers] = False
    left = np.flatnonzero(stays)
    check_enough(len(left))
    member_stays = np.repeat(stays, members.counts)
    remaining = Members(
        np.searchsorted(left, members.seed_images).astype(np.int64),
        members.patches,
        members.counts[left],
        members.patch[member_stays],
        members.joined[member_stays],
    )
    rows = state.rows(current.nominal.patches)
    starts = members.starts
    stretches = np.split(left, np.flatnonzero(np.diff(left) > 1) + 1)
    parts = [(rows, int(starts[part[0]]), int(starts[part[-1] + 1])) for part in stretches]
    report = FitReport(current.report.counts)
    names, skipped = names_without(current.image_names, report.counts["skipped_names"], numbers)
    report.counts["images"] -= len(numbers)
    report.counts["skipped_names"] = skipped
    return left, names, report, remaining, ChainedRows(parts, rows.dim)


# -------------------------------------------------------------------------------------------------------- names


def _moved(name: str, by: int) -> str:
    """A name that says no more than the place of an image among those given, when ``by`` images come before it."""
    found = _PLACEHOLDER.fullmatch(name)
    return name if found is None else f"{found[1]}[{int(found[2]) + by}]"


def names_without(names: Sequence[str], skipped: Sequence[str], numbers: IndexArray) -> tuple[list[str], list[str]]:
    """Names of the images that are left, and of those that were passed over, as a fit of the rest would call them.

    Names of files stay. Images without a name ("images[3]") are called by their place among all that were given, so
    that those behind one that goes move up.
    """
    unreadable = {place for name in skipped if (place := _place(name)) is not None}
    places: list[int] = []
    at = -1
    for name in names:
        at = at + 1 if _place(name) is None else _place(name) or 0
        while at in unreadable:
            at += 1
        places.append(at)
    gone = np.sort(np.array([places[number] for number in numbers.tolist()], dtype=np.int64))

    def renamed(name: str) -> str:
        place = _place(name)
        return name if place is None else _moved(name, -int(np.searchsorted(gone, place)))

    forgotten = set(numbers.tolist())
    left = [renamed(name) for number, name in enumerate(names) if number not in forgotten]
    return left, [renamed(name) for name in skipped]


def _place(name: str) -> int | None:
    found = _PLACEHOLDER.fullmatch(name)
    return None if found is None else int(found[2])
