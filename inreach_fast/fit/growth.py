"""Images added to a fitted model and removed from it, with the result of a fit of the resulting set, bit for bit.

Why the results are equal, given the seed images:

* An image's patches join channels by what the image and the seed images show; no other image matters. Members of the
  images that stay are therefore those of before. (With ``assoc_pairs="later"`` an image meets the seed images before
  it: new images are behind all of them, and a removal that changes the order is refused.)
* Images have the places that a fit of the resulting set gives them (`arrangement`); the members are put in that order.
  Copies share a place, so that adding or removing one of several changes nothing else.
* Filters, search index and threshold depend on the members alone, in their order; they are computed again.
* The threshold's sample is drawn by what images show, not by their numbers (`arrangement.ranked_images`).
* Whether positions are used, and whether images are rotated, depends on all images: it is decided again from the
  stored network inputs. If the decision changes, every descriptor changes, and a refit is needed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from ..array_types import FloatArray, IndexArray, UInt8Array
from ..errors import DescriptorsNeededError, RefitNeededError, SeedImageError, TooFewImagesError
from ..images.source import ImageSource
from ..kernels import backend_of
from ..method.arrangement import Arrangement, ranked_images, reference_number
from ..method.association import Associator, members_of
from ..method.channels import MemberRows, Members
from ..method.descriptors import described_rows, in_memory
from ..storage.inputs import InputStore, array_digest, stacked_digests
from ..storage.members import MemberStore
from ..storage.row_log import RowLog
from ..storage.rows import GatheredRows
from .associating import associate_images, gather
from .context import FitContext
from .growth_state import RESERVE
from .image_job import ImageTask
from .limits import check_different, check_enough, check_limit
from .model_building import build_model
from .reading import FitData, PlacedInputs, decide_positions, read_images
from .result import FitResult

RowsOf = Callable[[int], FloatArray | None]
"""The (P, D) descriptors of an image, if they are available."""

_UNNAMED = re.compile(r"(images|x)\[(\d+)\]")
_REFIT = "fit all images again, or give refit=True, which chooses new seed images"


# ------------------------------------------------------------------------------------------------------ images


def add_images(context: FitContext, current: FitResult, source: ImageSource) -> FitResult:
    """The model of the images of ``current``, then those of ``source``.

    Raises:
        RefitNeededError; ImageError, TooFewImagesError (no new image can be read), NonFiniteError, NoChannelsError,
        MemoryLimitError.
    """
    _check_limit(context, current, len(current.image_names) + len(source))
    state = current.growth
    inputs, names = read_added(context, current, source)
    with closing(inputs):
        merged = _Merged(current, inputs.digests)
        known = None
        if state.angles is not None:
            known = np.full(len(merged.arrangement), -1, dtype=np.int64)
            known[merged.moved] = state.angles
        training = _training_set(context, current, inputs, names, merged.arrangement, merged.seed_images, known)
        space, new = training.space(current.grid, context.parameters), merged.new.tolist()
        with closing(_store_for(context, current, len(new))) as store:
            seed_rows = state.members.seed_rows(state.rows(current.nominal.patches))
            tasks = (ImageTask(i, training.pixels(i), False, training.name(i)) for i in new)
            associate_images(context, merged.seed_images, seed_rows, space, tasks, store, len(new))
            del seed_rows
            return _rebuilt(context, current, training, *_extended(current, store, merged))


def read_added(context: FitContext, current: FitResult, source: ImageSource) -> tuple[InputStore, list[str]]:
    """The network inputs and names of the images of ``current``, then of ``source``; the report counts the new ones."""
    old = int(current.report.counts["images"])
    inputs = _stored(context, current, range(len(current.image_names)), len(source))
    used, skipped = read_images(context, source, inputs)
    if not used:
        raise TooFewImagesError(f"images: none of the {len(source)} images can be read; give at least one that can")
    counts = context.report.counts
    counts.update(current.report.counts)
    all_skipped = [*counts["skipped_names"], *(_moved(name, old) for name in skipped)]
    counts.update(images=old + len(source), skipped=len(all_skipped), skipped_names=all_skipped)
    return inputs, [*current.image_names, *(_moved(source.names[i], old) for i in used)]


def forget_images(context: FitContext, current: FitResult, numbers: IndexArray) -> FitResult:
    """The model of the images that are left without ``numbers`` (ascending).

    Raises:
        SeedImageError, RefitNeededError, TooFewImagesError, DegenerateDataError, NoChannelsError, MemoryLimitError.
    """
    left = _without(context, current, numbers)
    state, selection = current.growth, context.parameters.seed_selection
    before = reference_number(current.arrangement, state.members.seed_images, selection)
    after = left.numbers[reference_number(left.arrangement, left.members.seed_images, selection)]
    same = current.arrangement.place[before] == current.arrangement.place[after]
    if current.alignment is not None and current.alignment.kept and not same:
        raise RefitNeededError(
            f"ids: {current.image_names[before]} is the image that all others were rotated to; {_REFIT}"
        )
    with closing(_stored(context, current, left.numbers.tolist(), 0)) as inputs:
        # The angles are those to one image: they say nothing about another.
        known = None if state.angles is None or not same else state.angles[left.places]
        seeds = left.members.seed_images
        training = _training_set(context, current, inputs, left.names, left.arrangement, seeds, known)
        return _rebuilt(context, current, training, left.members, left.rows)


def _stored(context: FitContext, current: FitResult, numbers: Sequence[int], more: int) -> InputStore:
    """Inputs of images of the model, with room for more."""
    kept = current.growth.inputs
    assert kept is not None
    inputs = InputStore(context.workspace, context.parameters.input_size, len(numbers) + more)
    sizes = sizes_of(current)
    for number in numbers:
        height, width = sizes[number].tolist()
        inputs.append(np.array(kept[number]), (height, width))
    return inputs


def sizes_of(current: FitResult) -> IndexArray:
    """(height, width) of each image as it was given, int64 (N, 2); 0 where that is not known."""
    if current.thumbnails is None:
        return np.zeros((len(current.image_names), 2), np.int64)
    return current.thumbnails.sizes


def _training_set(
    context: FitContext,
    current: FitResult,
    inputs: InputStore,
    names: list[str],
    arrangement: Arrangement,
    seed_images: IndexArray,
    known: IndexArray | None,
) -> FitData:
    """The resulting set; RefitNeededError if its position test or alignment has another result than before."""
    p = context.parameters
    reference = inputs[reference_number(arrangement, seed_images, p.seed_selection)]
    alignment, positions = decide_positions(PlacedInputs(inputs, arrangement), p, context.progress, known, reference)
    kept = current.alignment is not None and current.alignment.kept
    if alignment.kept != kept or positions != current.positions:
        result = "are no longer aligned" if kept else "are now aligned"
        if alignment.kept == kept:
            result = "now have consistent positions" if positions else "no longer have consistent positions"
        raise RefitNeededError(
            f"images: with this change the images {result} (transpose score {alignment.score_before:.0f}, threshold "
            f"{alignment.threshold:.0f}), so that every descriptor changes; {_REFIT}"
        )
    return FitData(
        names=names,
        digests=inputs.digests,
        arrangement=arrangement,
        positions=positions,
        alignment=alignment,
        inputs=inputs,
        sizes=inputs.sizes,
    ).finished()


def _rebuilt(
    context: FitContext, current: FitResult, training: FitData, members: Members, rows: MemberRows
) -> FitResult:
    space = training.space(current.grid, context.parameters)

    def image_rows(image: int, _: MemberRows) -> FloatArray:
        return in_memory(described_rows(context.describer, training.pixels(image), space, training.name(image)))

    return build_model(context, training, current.grid, members, rows, image_rows)


# ------------------------------------------------------------------------------------------------- descriptors


def add_rows(context: FitContext, current: FitResult, x: FloatArray, available: RowsOf) -> FitResult:
    """The model of all images, the new ones' descriptors being (n, P, D).

    Args:
        available: returns the descriptors of an image of the resulting set.

    Raises:
        DescriptorsNeededError, NoChannelsError, MemoryLimitError.
    """
    state, p, old = current.growth, context.parameters, len(current.image_names)
    _check_limit(context, current, old + len(x))
    context.report.counts.update(current.report.counts)
    context.report.counts["images"] += len(x)
    names = [*current.image_names, *(f"x[{old + i}]" for i in range(len(x)))]
    digests = np.concatenate([state.digests, stacked_digests([array_digest(image) for image in x])])
    merged = _Merged(current, digests)
    arrangement, new = merged.arrangement, merged.new.tolist()
    with closing(_store_for(context, current, len(new))) as store:
        seed_rows = state.members.seed_rows(state.rows(current.nominal.patches))
        associator = Associator(merged.seed_images, seed_rows, pairs=p.assoc_pairs, backend=backend_of(p))
        found = (members_of(associator, i, x[int(arrangement.first[i]) - old], is_seed=False, whole=False) for i in new)
        gather(context, found, store, len(new))
        del associator, found, seed_rows
        kept = {int(merged.moved[place]): place for place in state.kept_images.tolist()}

        def all_rows(image: int) -> FloatArray | None:
            return x[image - old] if image >= old else available(image)

        extended = _extended(current, store, merged)
        return _rebuilt_rows(context, current, names, digests, arrangement, kept, all_rows, *extended)


def forget_rows(context: FitContext, current: FitResult, numbers: IndexArray, available: RowsOf) -> FitResult:
    """The model of the images that are left without ``numbers`` (ascending); ``available`` as in `add_rows`.

    Raises:
        SeedImageError, DescriptorsNeededError, TooFewImagesError, DegenerateDataError, NoChannelsError,
        MemoryLimitError.
    """
    left, state = _without(context, current, numbers), current.growth
    place = {old: new for new, old in enumerate(left.places.tolist())}
    kept = {place[old]: old for old in state.kept_images.tolist() if old in place}
    digests = state.digests[left.numbers]
    return _rebuilt_rows(
        context, current, left.names, digests, left.arrangement, kept, available, left.members, left.rows
    )


def _rebuilt_rows(
    context: FitContext,
    current: FitResult,
    names: list[str],
    digests: UInt8Array,
    arrangement: Arrangement,
    kept: dict[int, int],
    available: RowsOf,
    members: Members,
    rows: MemberRows,
) -> FitResult:
    """The model of the resulting set; ``kept`` are the images (new place: old place) whose descriptors it has."""
    p, state, first = context.parameters, current.growth, arrangement.first
    ranked = ranked_images(digests[first], p.random_state)[: p.threshold_images + RESERVE].tolist()
    rest: dict[int, FloatArray] = {}
    for rank, image in enumerate(ranked):
        if image in kept:
            rest[image] = state.rest_of(kept[image])
            continue
        found = available(int(first[image]))
        if found is None or array_digest(found) != digests[first[image]].tobytes():
            if rank < p.threshold_images:
                raise DescriptorsNeededError(
                    f"x: the threshold now also depends on {names[first[image]]}, whose descriptors are not kept; give "
                    "those of all images of the model, x=(N, P, D) in their order"
                )
            break  # the reserve is shorter from here on
        rest[image] = found[~members.are_members(image)]
    order = sorted(rest)
    budget = context.workspace.budget
    log = RowLog(context.workspace, "rest", rows.dim, most_rows=sum(map(len, rest.values())), memory=budget.sample)
    for image in order:
        log.append(rest.pop(image))
    kept_images, kept_rest = np.array(order, dtype=np.int64), log.finish()
    training = FitData(
        names=names, digests=digests, arrangement=arrangement, kept_images=kept_images, kept_rest=kept_rest
    )

    def image_rows(image: int, where: MemberRows) -> FloatArray:
        start, stop = members.rest_span(kept_images, image)
        return members.whole_image(image, where.read(*members.span(image)), kept_rest[start:stop])

    return build_model(context, training, current.grid, members, rows, image_rows)


# --------------------------------------------------------------------------------------------------- both kinds


def _check_limit(context: FitContext, current: FitResult, images: int) -> None:
    members, dim = current.growth.members, int(current.nominal.patches.shape[1])
    check_limit(context, len(members.seed_images), members.patches, dim, images)


def _store_for(context: FitContext, current: FitResult, images: int) -> MemberStore:
    dim = int(current.nominal.patches.shape[1])
    return MemberStore(context.workspace, dim, current.growth.members.patches, images, np.empty(0, np.int64))


@dataclass(frozen=True, eq=False)
class _Merged:
    """The images of a model, then new ones; ``digests``, uint8 (N, 32), are those of all.

    Attributes:
        arrangement: of all. moved: int64 (M,), where each place of the model is in it.
        new: int64, the other places, ascending. seed_images: the seed images' places.
    """

    current: FitResult
    digests: UInt8Array

    @cached_property
    def arrangement(self) -> Arrangement:
        return Arrangement.of(self.digests, self.current.arrangement.order)

    @cached_property
    def moved(self) -> IndexArray:
        return self.arrangement.place[self.current.arrangement.first]

    @property
    def new(self) -> IndexArray:
        return np.setdiff1d(np.arange(len(self.arrangement)), self.moved)

    @property
    def seed_images(self) -> IndexArray:
        return self.moved[self.current.growth.members.seed_images]


def _extended(current: FitResult, store: MemberStore, merged: _Merged) -> tuple[Members, GatheredRows]:
    """The model's members and those in the store, and their rows, in the order of the places of all."""
    state = current.growth
    members = state.members.extended(store.members(np.empty(0, np.int64)))
    rows = state.rows(current.nominal.patches).followed_by(store.rows)
    order = np.argsort(np.concatenate([merged.moved, merged.new]))
    return members.of_images(order), rows.taken(members.rows_of(order))


class _Left(NamedTuple):
    """What is left without some images.

    Attributes:
        numbers: int64 (n,), the numbers that they had, ascending. names: their names now. arrangement: theirs.
        places: int64 (m,), the place that each of the arrangement's was.
        members, rows: of these places.
    """

    numbers: IndexArray
    names: list[str]
    arrangement: Arrangement
    places: IndexArray
    members: Members
    rows: GatheredRows


def _without(context: FitContext, current: FitResult, numbers: IndexArray) -> _Left:
    """The images that are left; the report no longer counts the others."""
    state, members, before = current.growth, current.growth.members, current.arrangement
    left = np.setdiff1d(np.arange(len(before.place)), numbers)
    _check_limit(context, current, len(left))
    gone = np.setdiff1d(before.place[numbers], before.place[left])
    seeds = np.intersect1d(gone, members.seed_images)
    if len(seeds):
        name = current.image_names[int(before.first[seeds].min())]
        raise SeedImageError(f"ids: {name} is a seed image, with which all others were compared; {_REFIT}")
    check_enough(len(left))
    check_different(state.digests[left], "ids", "images that would be left")
    arrangement = Arrangement.of(state.digests[left], before.order)
    places = before.place[left[arrangement.first]]
    if (np.diff(places) < 0).any():
        raise RefitNeededError(
            'ids: the first of several equal images is among them, and with assoc_pairs="later" the order of the '
            f"images counts; {_REFIT}"
        )
    rows = state.rows(current.nominal.patches).taken(members.rows_of(places))
    counts = context.report.counts
    counts.update(current.report.counts)
    names, skipped = names_without(current.image_names, counts["skipped_names"], numbers)
    counts.update(images=counts["images"] - len(numbers), skipped_names=skipped)
    return _Left(left, names, arrangement, places, members.of_images(places), rows)


# -------------------------------------------------------------------------------------------------------- names


def names_without(names: Sequence[str], skipped: Sequence[str], numbers: IndexArray) -> tuple[list[str], list[str]]:
    """Names of the images that are left, and of those that were skipped, as a fit of these images would call them.

    Names of files stay. Images without a name ("images[3]") are called by their place among all that were given, so
    that those behind a removed one move up.
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


def _moved(name: str, by: int) -> str:
    """The name of an image, if it is only its place among those given, when ``by`` images come before it."""
    found = _UNNAMED.fullmatch(name)
    return name if found is None else f"{found[1]}[{int(found[2]) + by}]"


def _place(name: str) -> int | None:
    found = _UNNAMED.fullmatch(name)
    return None if found is None else int(found[2])
