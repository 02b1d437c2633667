"""The members' rows on their way to their places: the nominal ones in one array, the others in another.

Rows that outgrow the memory limit are moved from the members' file to two others, the last ones first, a stretch at a
time: a stretch is written, then put on record, then cut off the members' file. So they never lie on disk twice, but
for a stretch; and a process that is killed in between leaves either the stretch, or the record that it is not needed
any more. The places are known before the first row is moved: a file is a hole before what has been written to it.
Nominal rows lie in their file where a model file has them, so that it can become one (`model_file.save_file`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import numpy as np

from ..array_types import BoolArray, FloatArray
from ..errors import SpoolCorruptError, SpoolMismatchError
from ..method.channels import MemberRows, Members, Selection
from ..parameters import Parameters
from .model_file import ARRAYS_AT
from .row_log import RowLog
from .spool import Spool, crc32
from .workspace import Workspace, map_file, read_into, write_all, write_at

Progress = Callable[[str, int, int], None]

FILTER_PARAMETERS = ("span_filter", "spread_filter", "min_channel_length", "max_channel_std")
_NOMINAL, _OTHERS, _SELECTION = "nominal", "others", "selection"
_STRETCH_BYTES = 32 << 20


def place(
    rows: MemberRows, selection: Selection, workspace: Workspace, tell: Progress
) -> tuple[FloatArray, FloatArray]:
    """The nominal rows in one array, the other members' in another: in memory, or memory-mapped from files.

    Args:
        rows: of all members. A `RowLog` is used up.
        selection: which of them are nominal. In a spool with rows in a file it is on record (`record_selection`).
        workspace: a `Spool` whose rows have been moved in part is gone on from.
        tell: called as tell("place", rows moved, rows).

    Raises:
        SpoolWriteError: in a spool, the rows that were moved stay where they are, and the others too.
    """
    chosen = selection.nominal
    if isinstance(rows, RowLog):
        if rows.array is not None:
            others = rows.array[~chosen]
            return rows.compact(np.flatnonzero(chosen)), others
    elif 4 * len(chosen) * rows.dim <= workspace.budget.members:
        return _in_memory(rows, chosen)
    return _in_files(rows, chosen, workspace, tell)


def record_selection(workspace: Workspace, selection: Selection, p: Parameters) -> None:
    """Puts on record what the filters left: a resumed fit starts behind them. Nothing where it is no `Spool`."""
    if not isinstance(workspace, Spool):
        return
    saved = np.stack([selection.nominal.astype(np.int64), selection.channel])
    with workspace.open_file(_SELECTION) as file:
        try:
            file.truncate(0)
            write_all(file, saved)
            os.fsync(file.fileno())
        except OSError as error:
            raise workspace.write_error(error, saved.nbytes) from error
    filters = {name: getattr(p, name) for name in FILTER_PARAMETERS}
    workspace.add({"kind": "selected", "filters": filters, "counts": selection.counts, "crc": crc32(saved)})


def recorded_selection(workspace: Workspace, members: Members, p: Parameters) -> Selection | None:
    """What an earlier process put on record, if it came so far.

    Raises:
        SpoolMismatchError: its filters were others. SpoolCorruptError: the record's data were altered.
    """
    records = workspace.of_kind("selected") if isinstance(workspace, Spool) else []
    if not records:
        return None
    for name, value in records[0]["filters"].items():
        if value != getattr(p, name):
            raise SpoolMismatchError(
                f"{workspace.place}: the spool is of another configuration: {name} (was {value!r}, is "
                f"{getattr(p, name)!r}), and its filters are done; resume with the same one, or remove the spool and "
                "begin again"
            )
    saved = np.empty((2, len(members)), np.int64)
    with workspace.open_file(_SELECTION) as file:
        try:
            read_into(file, 0, saved)
        except EOFError:
            saved = saved[:, :0]
    if crc32(saved) != records[0]["crc"]:
        raise SpoolCorruptError(
            f"{workspace.place}: what the filters left was altered; remove the spool and begin again"
        )
    return Selection(saved[0].astype(bool), saved[1], records[0]["counts"])


def rows_left(spool: Spool) -> int | None:
    """How many rows, from the first on, are still in the members' file; None where none has been moved."""
    records = spool.of_kind("moved")
    return int(records[-1]["left"]) if records else None


# ------------------------------------------------------------------------------------------------------ its ways


def _in_memory(rows: MemberRows, chosen: BoolArray) -> tuple[FloatArray, FloatArray]:
    count = int(np.count_nonzero(chosen))
    nominal, others = (np.empty((n, rows.dim), np.float32) for n in (count, len(chosen) - count))
    for start, stop in _stretches(len(chosen), rows.dim):
        flags, stretch = chosen[start:stop], rows.read(start, stop)
        first, last = (int(np.count_nonzero(chosen[:end])) for end in (start, stop))
        nominal[first:last] = stretch[flags]
        others[start - first : stop - last] = stretch[~flags]
    return nominal, others


def _in_files(
    rows: MemberRows, chosen: BoolArray, workspace: Workspace, tell: Progress
) -> tuple[FloatArray, FloatArray]:
    log = rows if isinstance(rows, RowLog) else None
    spool = workspace if isinstance(workspace, Spool) and log is not None else None
    left = None if spool is None else rows_left(spool)
    opened = workspace.new_file if left is None else workspace.open_file
    row_bytes, total, count = 4 * rows.dim, len(chosen), int(np.count_nonzero(chosen))
    with opened(_NOMINAL) as nominal, opened(_OTHERS) as others:
        for start, stop in _stretches(total if left is None else left, rows.dim):
            flags, stretch = chosen[start:stop], rows.read(start, stop)
            first = int(np.count_nonzero(chosen[:start]))
            try:
                if spool is not None and log is not None and stop == total:
                    log.sync()  # once some are moved, the others cannot be made again
                write_at(nominal, ARRAYS_AT + row_bytes * first, stretch[flags])
                write_at(others, row_bytes * (start - first), stretch[~flags])
                if spool is not None:
                    os.fsync(nominal.fileno())
                    os.fsync(others.fileno())
            except OSError as error:
                raise workspace.write_error(error, stretch.nbytes) from error
            if spool is not None:
                spool.add({"kind": "moved", "left": start}, sync=True)
            if log is not None:
                log.cut(start)
            tell("place", total - start, total)
        if log is not None:
            log.close()
        if spool is not None:
            spool.drop_file("members")
        try:
            placed = map_file(nominal, np.float32, (count, rows.dim), ARRAYS_AT)
            if isinstance(workspace, Spool):
                workspace.placed = placed
            return placed, map_file(others, np.float32, (total - count, rows.dim))
        except ValueError as error:  # the file is shorter
            raise SpoolCorruptError(
                f"{workspace.place}: rows that were written there are gone; remove the spool and begin again"
            ) from error


def _stretches(count: int, dim: int) -> Iterator[tuple[int, int]]:
    """(first row, last row + 1) of each stretch of ``count`` rows, the last stretch first."""
    step = max(1, _STRETCH_BYTES // max(1, 4 * dim))
    for stop in range(count, 0, -step):
        yield max(0, stop - step), stop
