"""From members to a fitted model: filters, nominal patches, search index, threshold. A fit and a growth end alike."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from .alignment import Alignment
from .channels import Members, Selection, select_members, spread_in_memory, spread_streamed
from .errors import SpoolCorruptError, SpoolMismatchError, SpoolWriteError
from .fit_report import FitReport
from .growth_state import GrowthState
from .member_rows import ArrayRows, MemberRows, SplitRows
from .memory import mapped_file, release_pages
from .nominal_model import NominalModel
from .parameters import Parameters
from .row_log import RowLog
from .scoring import Scorer, anomaly_map, image_score
from .spool import Spool
from .workspace import Workspace, map_file, read_into, write_all

FloatArray = npt.NDArray[np.float32]
IndexArray = npt.NDArray[np.int64]
UInt8Array = npt.NDArray[np.uint8]
Progress = Callable[[str, int, int], None]

FILTER_PARAMETERS = ("span_filter", "spread_filter", "min_channel_length", "max_channel_std")
_CHUNK_BYTES = 32 << 20
# Each query reads some dozen rows, and the system brings in sixteen pages about each.
_MAPPED_QUERIES = 32


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
        placed = _placed_before(workspace, members, rows.dim, p)
        if placed is None:
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
            placed = selection, *_place(rows, selection, workspace, p)
        selection, patches, others = placed
        report.counts.update(selection.counts)
        tell("filter", 1, 1)
    channel, place = selection.channel[selection.nominal], np.flatnonzero(selection.nominal)
    nominal = NominalModel(
        patches,
        members.image[place],
        members.patch[place].astype(np.int64),
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
        where = SplitRows(selection.nominal, ArrayRows(patches), ArrayRows(others))
        for k, image in enumerate(sampled.tolist()):
            scores[k] = leave_one_out_score(scorer, image_rows(image, where), image, grid, p)
            tell("threshold", k + 1, len(sampled))
    return Nominated(nominal, selection, others, scores)


def leave_one_out_score(
    scorer: Scorer, rows: FloatArray, image: int, grid: tuple[int, int], parameters: Parameters
) -> float:
    """Score of a training image, (P, D) descriptors, against the nominal patches of the other images."""
    values = np.empty(len(rows), dtype=np.float32)
    mapped = mapped_file(scorer.bank.rows) is not None
    step = _MAPPED_QUERIES if mapped else len(rows)
    for start in range(0, len(rows), step):
        values[start : start + step], _ = scorer.patch_scores(rows[start : start + step], leave_out=image)
        if mapped:  # rows that were looked at would stay in memory, with those around them
            release_pages(scorer.bank.rows)
    return image_score(anomaly_map(values.reshape(grid), parameters.image_size, parameters.smoothing_sigma))


# ---------------------------------------------------------------------------------------------- where rows go


def _place(
    rows: MemberRows, selection: Selection, workspace: Workspace, p: Parameters
) -> tuple[FloatArray, FloatArray]:
    """The nominal rows in one array, the other members' in another: in memory, or memory-mapped from files."""
    chosen = selection.nominal
    if isinstance(rows, RowLog) and rows.array is not None:
        others = rows.array[~chosen]
        return rows.compact(np.flatnonzero(chosen)), others
    count = int(np.count_nonzero(chosen))
    shapes = (count, rows.dim), (len(chosen) - count, rows.dim)
    if 4 * len(chosen) * rows.dim <= workspace.budget.members:
        nominal, others = (np.empty(shape, np.float32) for shape in shapes)
        first = second = 0
        for flags, stretch in _stretches(rows, chosen):
            picked = int(np.count_nonzero(flags))
            nominal[first : first + picked] = stretch[flags]
            others[second : second + len(flags) - picked] = stretch[~flags]
            first, second = first + picked, second + len(flags) - picked
        return nominal, others
    files = workspace.open_file("nominal"), workspace.open_file("others")
    if isinstance(workspace, Spool):
        workspace.expected = 4 * len(chosen) * rows.dim
    try:
        for file in files:
            file.truncate(0)
        for flags, stretch in _stretches(rows, chosen):
            write_all(files[0], stretch[flags])
            write_all(files[1], stretch[~flags])
    except OSError as error:
        raise workspace.write_error(error, 4 * len(chosen) * rows.dim) from error
    if isinstance(workspace, Spool):
        _record_placed(workspace, selection, files, p)
    if isinstance(rows, RowLog):
        rows.close()
    mapped = tuple(map_file(file, np.float32, shape) for file, shape in zip(files, shapes, strict=True))
    for file in files:
        file.close()
    return mapped[0], mapped[1]


def _stretches(rows: MemberRows, chosen: npt.NDArray[np.bool_]) -> Iterator[tuple[npt.NDArray[np.bool_], FloatArray]]:
    """(flags, rows) of one stretch of the members after the other."""
    step = max(1, _CHUNK_BYTES // max(1, 4 * rows.dim))
    for start in range(0, len(chosen), step):
        stop = min(start + step, len(chosen))
        yield chosen[start:stop], rows.read(start, stop)


def _record_placed(spool: Spool, selection: Selection, files: Iterable[BinaryIO], p: Parameters) -> None:
    """From here on a resumed fit starts behind the filters, and the members' own file is not needed."""
    with spool.open_file("selection") as file:
        try:
            file.truncate(0)
            write_all(file, np.stack([selection.nominal.astype(np.int64), selection.channel]))
            for written in (*files, file):
                os.fsync(written.fileno())
        except OSError as error:
            raise spool.write_error(error, 16 * len(selection.nominal)) from error
    filters = {name: getattr(p, name) for name in FILTER_PARAMETERS}
    spool.add({"kind": "placed", "filters": filters, "counts": selection.counts})
    spool.sync()
    spool.drop_file("members")


def _placed_before(
    workspace: Workspace, members: Members, dim: int, p: Parameters
) -> tuple[Selection, FloatArray, FloatArray] | None:
    """What an earlier process placed and put on record, if it came so far."""
    records = workspace.of_kind("placed") if isinstance(workspace, Spool) else []
    if not records:
        return None
    for name, value in records[0]["filters"].items():
        if value != getattr(p, name):
            raise SpoolMismatchError(
                f"{workspace.place}: the spool is of another configuration: {name} (was {value!r}, is "
                f"{getattr(p, name)!r}), and its filters are done; resume with the same one, or remove the spool and "
                "begin again"
            )
    count = len(members)
    saved = np.empty((2, count), np.int64)
    try:
        with workspace.open_file("selection") as file:
            read_into(file, 0, saved)
        selection = Selection(saved[0].astype(bool), saved[1], records[0]["counts"])
        mapped = []
        chosen = int(np.count_nonzero(selection.nominal))
        for name, length in (("nominal", chosen), ("others", count - chosen)):
            with workspace.open_file(name) as file:
                mapped.append(map_file(file, np.float32, (length, dim)))
    except (EOFError, ValueError) as error:
        raise SpoolCorruptError(
            f"{workspace.place}: rows that were written there are gone; remove the spool and begin again"
        ) from error
    return selection, mapped[0], mapped[1]
