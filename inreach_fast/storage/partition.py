"""Separates the members' rows: the nominal ones into one array, the others into another.

Rows that exceed the memory limit are moved from the members' file to two other files, from the last row to the first, a
block at a time: a block is written, then recorded, then cut off the members' file. So no more than a block is on disk
twice, and a process that is killed at any point leaves either the block, or the record that it is no longer needed.
Where each row goes is known before the first one is moved; a file is a hole up to the first byte written to it. Nominal
rows are at the offset where a model file has them, so that their file can become one (`model_file.save_file`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from ..array_types import BoolArray, FloatArray
from ..errors import SpoolCorruptError
from ..method.channels import MemberRows
from ..system.progress import Progress
from .files import map_file, write_at
from .model_file import ARRAYS_AT
from .row_log import RowLog
from .workspace import Workspace

BLOCK_BYTES: Final = 32 << 20
"""Bytes of rows that are on disk twice while they are moved."""


def partition(
    rows: MemberRows, chosen: BoolArray, workspace: Workspace, progress: Progress
) -> tuple[FloatArray, FloatArray]:
    """The chosen rows in one array, the others in another: in memory, or memory-mapped from files.

    Args:
        rows: (n, D). A `RowLog` cannot be used afterwards.
        chosen: bool (n,). With a `Spool`, the selection that it comes from has been recorded.
        workspace: a `Spool` whose rows have been moved in part is continued from.
        progress: called as progress("place", rows moved, rows).

    Raises:
        SpoolWriteError: a spool's rows stay where they are, those that were moved and the others.
    """
    if isinstance(rows, RowLog):
        if rows.array is not None:
            others = rows.array[~chosen]
            return rows.compact(np.flatnonzero(chosen)), others
    elif 4 * len(chosen) * rows.dim <= workspace.budget.members:
        array = rows.read(0, len(chosen))
        return array[chosen], array[~chosen]
    return _in_files(rows, chosen, workspace, progress)


def _in_files(
    rows: MemberRows, chosen: BoolArray, workspace: Workspace, progress: Progress
) -> tuple[FloatArray, FloatArray]:
    log = rows if isinstance(rows, RowLog) else None
    left = workspace.rows_left
    open_file = workspace.new_file if left is None else workspace.open_file
    row_bytes, total, count = 4 * rows.dim, len(chosen), int(np.count_nonzero(chosen))
    with open_file("nominal") as nominal, open_file("others") as others:
        for start, stop in _blocks(total if left is None else left, rows.dim):
            flags, block = chosen[start:stop], rows.read(start, stop)
            first = int(np.count_nonzero(chosen[:start]))
            with workspace.writing(block.nbytes):
                if log is not None and stop == total:
                    workspace.sync(log.file)  # once some rows are moved, the others cannot be made again
                write_at(nominal, ARRAYS_AT + row_bytes * first, block[flags])
                write_at(others, row_bytes * (start - first), block[~flags])
                workspace.sync(nominal, others)
            workspace.record_moved(start)
            if log is not None:
                log.cut(start)
            progress("place", total - start, total)
        if log is not None:
            log.close()
        try:
            moved = map_file(nominal, np.float32, (count, rows.dim), ARRAYS_AT)
            workspace.finish_moving(moved)
            return moved, map_file(others, np.float32, (total - count, rows.dim))
        except ValueError as error:  # the file is shorter
            raise SpoolCorruptError(
                f"{workspace.place}: rows that were written there are gone; remove the spool and start again"
            ) from error


def _blocks(count: int, dim: int) -> Iterator[tuple[int, int]]:
    """(first row, last row + 1) of each block of ``count`` rows, the last block first."""
    step = max(1, BLOCK_BYTES // max(1, 4 * dim))
    for stop in range(count, 0, -step):
        yield max(0, stop - step), stop
