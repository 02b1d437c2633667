"""From members to a fitted model: filters, nominal patches, search index, threshold. A fit and a growth end alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..array_types import Array, FloatArray, IndexArray
from ..errors import SpoolWriteError
from ..images.alignment import Alignment
from ..memory import mapped_file, release_pages
from ..method.channels import MemberRows, Members, Selection, select_members, spread_in_memory, spread_streamed
from ..method.nominal_model import NominalModel
from ..method.scoring import Scorer, anomaly_map, image_score
from ..parameters import Parameters
from ..storage.row_log import RowLog
from ..storage.row_split import place, record_selection, recorded_selection
from ..storage.rows import ArrayRows, SplitRows
from ..storage.workspace import Workspace
from .growth_state import GrowthState
from .report import FitReport

Progress = Callable[[str, int, int], None]

# Each query reads some hundred rows, and the system brings in sixteen pages about each.
_MAPPED_QUERIES = 16
# Of the search index: what is read for survivors alone, and is most of it.
_FOR_SURVIVORS = ("middle_codes", "last_codes", "row_rests")


@dataclass(frozen=True, eq=False)
class Fitted:
    """All that a fit finds out; `InReaCh` takes it over at once, or not at all.

    Attributes are those of `InReaCh` without their underscore, and:
        alignment: what the position test and the rotation search found; None for descriptors.
        growth: what growing needs.
    """

    nominal: NominalModel
    grid: tuple[int, int]
    image_names: list[str]
    seed_images: IndexArray
    positions: bool
    alignment: Alignment | None
    threshold_scores: FloatArray
    threshold_images: IndexArray
    report: FitReport
    growth: GrowthState


@dataclass(frozen=True, eq=False)
class Nominated:
    """What `nominate` makes of the members."""

    nominal: NominalModel
    selection: Selection
    others: FloatArray
    scores: FloatArray


def nominate(
    members: Members,
    rows: MemberRows,
    sampled: IndexArray,
    image_rows: Callable[[int, MemberRows], FloatArray],
    grid: tuple[int, int],
    parameters: Parameters,
    workspace: Workspace,
    report: FitReport,
    tell: Progress,
) -> Nominated:
    """Filters the members, puts the nominal ones in their place, prepares the search, scores the threshold's sample.

    Args:
        members, rows: before the filters. A `RowLog` is used up.
        sampled: int64, images to be scored, leave-one-image-out.
        image_rows: (P, D) descriptors of one of them, given its number and where the members' rows are by now.
        grid, parameters, workspace: as elsewhere; report and tell are kept informed.

    Raises:
        NoChannelsError, SpoolWriteError.
    """
    p = parameters
    with report.stage("filter"):
        tell("filter", 0, 1)  # of millions of patches this and the index take minutes
        selection = recorded_selection(workspace, members, p)
        if selection is None:
            min_length = p.min_channel_length if p.span_filter else None
            max_std = p.max_channel_std if p.spread_filter else None
            array = rows.load(workspace.budget.members) if isinstance(rows, RowLog) else None
            if array is not None:
                spread = spread_in_memory(array, min_length=min_length, max_std=max_std, backend=p.kernel_backend)
            else:
                spread = spread_streamed(
                    rows,
                    members,
                    min_length=min_length,
                    max_std=max_std,
                    memory=workspace.budget.sums,
                    backend=p.kernel_backend,
                )
            selection = select_members(members, spread, min_length=min_length, max_std=max_std)
            if array is None:
                record_selection(workspace, selection, p)
        patches, others = place(rows, selection, workspace, tell)
        report.counts.update(selection.counts)
        tell("filter", 1, 1)
    channel, where = selection.channel[selection.nominal], np.flatnonzero(selection.nominal)
    nominal = NominalModel(
        patches,
        members.image[where],
        members.patch[where].astype(np.int64),
        members.seed_images[channel // members.patches],
        channel % members.patches,
    )
    with report.stage("index"):
        tell("index", 0, 1)
        on_disk = mapped_file(patches) is not None
        try:
            nominal.build_index(workspace.index_folder() if on_disk else None, workspace.budget.index)
        except OSError as error:
            if isinstance(error, SpoolWriteError):
                raise
            raise workspace.write_error(error, patches.nbytes // 4) from error
        release_pages(patches)
        tell("index", 1, 1)
    with report.stage("threshold"):
        report.counts["threshold_images"] = len(sampled)
        scorer = Scorer(nominal.bank, lambda: channel, p.score, p.distance, p.kernel_backend)
        scores = np.empty(len(sampled), dtype=np.float32)
        placed = SplitRows(selection.nominal, ArrayRows(patches), ArrayRows(others))
        index = nominal.index_arrays or {}
        # An index beyond the limit must not gather in memory either, though that costs a third of the speed.
        outgrown = on_disk and sum(array.nbytes for array in index.values()) > workspace.budget.index
        passing = [index[name] for name in _FOR_SURVIVORS if name in index] if outgrown else []
        for k, image in enumerate(sampled.tolist()):
            scores[k] = leave_one_out_score(scorer, image_rows(image, placed), image, grid, p, passing)
            tell("threshold", k + 1, len(sampled))
    return Nominated(nominal, selection, others, scores)


def leave_one_out_score(
    scorer: Scorer,
    rows: FloatArray,
    image: int,
    grid: tuple[int, int],
    parameters: Parameters,
    passing: Sequence[Array] = (),
) -> float:
    """Score of a training image, (P, D) descriptors, against the nominal patches of the other images.

    Of nominal patches on disk, and of the arrays ``passing``, the pages that were looked at leave memory again.
    """
    values = np.empty(len(rows), dtype=np.float32)
    mapped = mapped_file(scorer.bank.rows) is not None
    step = _MAPPED_QUERIES if mapped else len(rows)
    for start in range(0, len(rows), step):
        values[start : start + step], _ = scorer.patch_scores(rows[start : start + step], leave_out=image)
        if mapped:  # rows that were looked at would stay in memory, with those around them
            for array in (scorer.bank.rows, *passing):
                release_pages(array)
    return image_score(anomaly_map(values.reshape(grid), parameters.image_size, parameters.smoothing_sigma))


def silent(stage: str, done: int, total: int) -> None:
    """The progress of a caller who asked for none."""
