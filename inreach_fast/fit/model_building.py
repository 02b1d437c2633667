"""From the members of channels to a fitted model: filters, nominal patches, search index, threshold scores.

A fit ends with this, and so does every change of a fitted model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from ..array_types import Array, FloatArray, IndexArray
from ..kernels import backend_of
from ..method.channels import ChannelFilters, MemberRows, Members, Selection, every_member, select_members
from ..method.nominal_model import NominalModel
from ..method.scoring import MapFrame, Scorer, frame_of, image_score
from ..method.threshold import sample_images
from ..parameters import Parameters
from ..storage.partition import partition
from ..storage.row_log import RowLog
from ..storage.rows import GatheredRows
from ..system.memory import mapped_file, mapped_runs, release_pages
from .context import FitContext
from .growth_state import GrowthState
from .judging import judge
from .reading import FitData
from .result import FitResult

ImageRows = Callable[[int, MemberRows], FloatArray]

# The parts of the search index that are read for few candidates only, and are most of it.
_FOR_CANDIDATES = ("middle_codes", "last_codes", "row_rests")


def build_model(
    context: FitContext,
    training: FitData,
    grid: tuple[int, int],
    members: Members,
    rows: MemberRows,
    image_rows: ImageRows,
) -> FitResult:
    """Filters the members, stores the nominal ones, builds the search index and scores the threshold's sample.

    Args:
        training: the images; a store of inputs is finished here.
        members, rows: before the filters. A `RowLog` cannot be used afterwards.
        image_rows: returns the (P, D) descriptors of an image of the sample, given its number and the members' rows.

    Raises:
        NoChannelsError, SpoolWriteError.
    """
    report, p = context.report, context.parameters
    training = training.finished()
    first = training.arrangement.first
    seed_numbers = np.sort(first[members.seed_images])
    report.counts.update(seed_images=seed_numbers.tolist(), patches=len(members.counts) * members.patches)
    with report.stage("filter"):
        context.progress("filter", 0, 1)  # with millions of patches this and the index take minutes
        selection = _selection(context, members, rows)
        patches, others = partition(rows, selection.nominal, context.workspace, context.progress)
        report.counts.update(selection.counts)
        context.progress("filter", 1, 1)
    frame = frame_of(p, grid)
    nominal = _nominal_model(members, selection, patches, first, frame)
    with report.stage("index"):
        context.progress("index", 0, 1)
        _build_index(context, nominal)
        context.progress("index", 1, 1)
    passing = _passing(context, nominal)
    if p.association == "all":
        with report.stage("confirm"):
            nominal = nominal.confirmed(p.witnesses, backend_of(p), context.progress, passing)
    sampled = sample_images(training.contents, p.threshold_images, p.random_state)
    with report.stage("threshold"):
        report.counts["threshold_images"] = len(sampled)
        channel = selection.channel[selection.nominal]
        scorer = Scorer(nominal.bank, lambda: channel, p.score, p.distance, backend_of(p))
        stored = GatheredRows.split(selection.nominal, patches, others)
        scores, unexplained = np.empty(len(sampled), dtype=np.float32), np.empty(len(sampled))
        for k, image in enumerate(sampled.tolist()):
            of_image = image_rows(image, stored)
            number = int(first[image])
            other = scorer_without(scorer, nominal, number, of_image, p)
            values = leave_one_out_values(other, of_image, number, passing)
            scores[k] = image_score(frame.map(values))
            unexplained[k] = unexplained_share(of_image, values, p)
            context.progress("threshold", k + 1, len(sampled))
        report.counts.update(judge(training, nominal, grid, sampled, scores, unexplained, p, report.counts))
    growth = GrowthState(
        members=members,
        nominal=selection.nominal,
        others=others,
        digests=training.digests,
        inputs=training.inputs if isinstance(training.inputs, np.ndarray) else None,
        angles=None if training.alignment is None else training.alignment.searched,
        kept_images=training.kept_images,
        kept_rest=np.empty((0, rows.dim), np.float32) if training.kept_rest is None else training.kept_rest,
    )
    alignment, order = training.alignment, np.argsort(first[sampled])
    return FitResult(
        nominal=nominal,
        grid=grid,
        image_names=training.names,
        arrangement=training.arrangement,
        seed_images=seed_numbers,
        positions=training.positions,
        alignment=None if alignment is None else alignment.at(training.arrangement.place),
        projection=training.projection,
        threshold_scores=scores[order],
        threshold_images=first[sampled][order],
        thumbnails=training.thumbnails(p),
        report=report,
        growth=growth,
    )


def _selection(context: FitContext, members: Members, rows: MemberRows) -> Selection:
    p, workspace = context.parameters, context.workspace
    recorded = workspace.recorded_selection(members, p)
    if recorded is not None:
        return recorded
    if p.association == "all":
        selection = every_member(members)
        if not (isinstance(rows, RowLog) and rows.array is not None):
            workspace.record_selection(selection, p)
        return selection
    array = rows.load(workspace.budget.members) if isinstance(rows, RowLog) else None
    where = rows if array is None else array
    selection = select_members(members, where, ChannelFilters.of(p), workspace.budget.sums)
    if array is None:
        workspace.record_selection(selection, p)
    return selection


def _nominal_model(
    members: Members, selection: Selection, patches: FloatArray, first: IndexArray, frame: MapFrame
) -> NominalModel:
    """The model, with the number of the first image at each place, ``first``, int64 (M,)."""
    channel, where = selection.channel[selection.nominal], np.flatnonzero(selection.nominal)
    image, patch = first[members.image[where]], frame.places(members.patch[where].astype(np.int64))
    if not len(members.seed_images):  # witnesses will take the place of channels
        return NominalModel(patches, image, patch, channel, channel)
    seeds = first[members.seed_images[channel // members.patches]]
    return NominalModel(patches, image, patch, seeds, frame.places(channel % members.patches))


def _build_index(context: FitContext, nominal: NominalModel) -> None:
    workspace, patches = context.workspace, nominal.patches
    with workspace.writing(patches.nbytes // 4):
        folder = workspace.index_folder() if mapped_file(patches) is not None else None
        nominal.build_index(folder, workspace.budget.index)
    release_pages(patches)


def _passing(context: FitContext, nominal: NominalModel) -> Sequence[Array]:
    """Arrays of an index beyond the limit, whose pages must not stay in memory; that costs a third of the speed."""
    index = nominal.index_arrays or {}
    size = sum(array.nbytes for array in index.values())
    if mapped_file(nominal.patches) is None or size <= context.workspace.budget.index:
        return ()
    return [index[name] for name in _FOR_CANDIDATES if name in index]


def scorer_without(
    scorer: Scorer, nominal: NominalModel, image: int, rows: FloatArray, parameters: Parameters
) -> Scorer:
    """The scorer for a training image, (P, D) descriptors: by reachability its testimony of others does not count."""
    if scorer.score != "reachability":
        return scorer
    floor = nominal.without_testimony(image, rows, parameters.witnesses, scorer.backend)
    return replace(scorer, bank=scorer.bank.with_floor(floor))


def leave_one_out_score(
    scorer: Scorer, nominal: NominalModel, rows: FloatArray, image: int, grid: tuple[int, int], parameters: Parameters
) -> float:
    """Score of a training image, (P, D) descriptors, against the nominal patches of the other images."""
    scorer = scorer_without(scorer, nominal, image, rows, parameters)
    values = leave_one_out_values(scorer, rows, image)
    return image_score(frame_of(parameters, grid).map(values))


def leave_one_out_values(scorer: Scorer, rows: FloatArray, image: int, passing: Sequence[Array] = ()) -> FloatArray:
    """Scores, float32 (P,), of a training image's patches, (P, D), against the nominal patches of the other images.

    For nominal patches on disk the pages that were read leave memory again, and so do those of the arrays ``passing``.
    """
    values = np.empty(len(rows), dtype=np.float32)
    for run in mapped_runs(len(rows), (scorer.bank.rows, *passing)):
        values[run], _ = scorer.patch_scores(rows[run], leave_out=image)
    return values


def unexplained_share(rows: FloatArray, values: FloatArray, p: Parameters) -> float:
    """Squared distances of patches, (P, D), to the nominal ones as a share of those to their own mean.

    0 if nothing varies and nothing is left; NaN if ``values``, the patches' scores, are no distances.
    """
    if p.score not in ("nearest", "reachability"):
        return float("nan")
    distance = values.astype(np.float64)
    left = float((distance if p.distance == "squared_l2" else distance * distance).sum())
    mean, variance = rows.mean(axis=0, dtype=np.float64), 0.0
    for start in range(0, len(rows), 64):  # float64 copies of so many rows stay in the cache
        centred = rows[start : start + 64] - mean
        variance += float(np.square(centred, out=centred).sum())
    if variance == 0.0:
        return 0.0 if left == 0.0 else float("inf")
    return left / variance
