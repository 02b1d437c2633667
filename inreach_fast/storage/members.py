"""The members of channels while a fit gathers them, image by image; in a spool each image's are on record."""

from __future__ import annotations

from typing import BinaryIO

import numpy as np

from ..array_types import IndexArray, Int32Array
from ..errors import SpoolCorruptError
from ..method.association import ImageMembers
from ..method.channels import Members
from .row_log import RowLog
from .row_split import rows_left
from .spool import Spool, crc32
from .workspace import Workspace, read_into, write_all


class MemberStore:
    """Takes what each image gives, in the order of the images.

    Args:
        workspace: budget and files; a `Spool` is gone on from.
        dim: values in a descriptor. patches: P. n_images: N.
        whole: the images whose other patches are kept as well (the threshold's sample), ascending.

    Attributes:
        rows: `RowLog`, the members' descriptors. rest: `RowLog`, the other patches of ``whole``, image by image.
        done: images taken in.
    """

    def __init__(self, workspace: Workspace, dim: int, patches: int, n_images: int, whole: IndexArray) -> None:
        self._workspace = workspace
        self._patches = patches
        self._n_images = n_images
        self._whole = whole
        self._counts: list[int] = []
        self._patch: list[Int32Array] = []
        self._joined: list[IndexArray] = []
        self._ids: BinaryIO | None = None
        budget = workspace.budget
        rows = rest = 0
        if isinstance(workspace, Spool):
            rows, rest = self._resume(workspace, dim)
        self.rows = RowLog(workspace, "members", dim, most_rows=n_images * patches, memory=budget.members, rows=rows)
        self.rest = RowLog(workspace, "rest", dim, most_rows=len(whole) * patches, memory=budget.sample, rows=rest)

    @property
    def done(self) -> int:
        """Images taken in."""
        return len(self._counts)

    def append(self, found: ImageMembers) -> None:
        """Takes in the next image.

        Raises:
            SpoolWriteError: it cannot be written; the images before stay as they are.
        """
        number = self.done
        spool = self._workspace if isinstance(self._workspace, Spool) else None
        if spool is not None:
            taken = 4 * self.rows.dim * (len(self.rows) + len(found.patch))
            spool.expected = taken * (self._n_images - number) // (number + 1)
        self.rows.append(found.rows)
        if found.rest is not None:
            self.rest.append(found.rest)
        if spool is not None:
            ids = np.stack([found.patch.astype(np.int64), found.joined])
            self._write_ids(spool, ids)
            data = (found.rows, ids, np.empty(0, np.float32) if found.rest is None else found.rest)
            rest = -1 if found.rest is None else len(found.rest)
            record = {"kind": "image", "number": number, "members": len(found.patch), "rest": rest}
            spool.add({**record, "crc": [crc32(part) for part in data]})
        self._counts.append(len(found.patch))
        self._patch.append(found.patch)
        self._joined.append(found.joined)

    def members(self, seed_images: IndexArray) -> Members:
        """Who the members are, once all images are taken in."""
        return Members(
            seed_images,
            self._patches,
            np.array(self._counts, dtype=np.int64),
            np.concatenate([np.empty(0, np.int32), *self._patch]),
            np.concatenate([np.empty(0, np.int64), *self._joined]),
        )

    def close(self) -> None:
        """Gives up memory and files; what was taken in stays in a spool."""
        self.rows.close()
        self.rest.close()
        if self._ids is not None:
            self._ids.close()

    def _write_ids(self, spool: Spool, ids: IndexArray) -> None:
        assert self._ids is not None
        begin = self._ids.tell()
        try:
            write_all(self._ids, ids)
        except OSError as error:
            self._ids.truncate(begin)
            self._ids.seek(begin)
            raise spool.write_error(error, ids.nbytes) from error

    def _resume(self, spool: Spool, dim: int) -> tuple[int, int]:
        """Takes in what the spool has on record and whole; (rows, rows of the rest) of it."""
        self._ids = spool.open_file("ids")
        left = rows_left(spool)  # of the members' file, where rows have been moved on since
        rows = rest = taken = 0
        head = len([record for record in spool.records if record["kind"] == "read"])
        for record in spool.of_kind("image"):
            count, others = int(record["members"]), int(record["rest"])
            ids = np.empty((2, count), np.int64)
            moved = left is not None and rows + count > left
            try:
                read_into(self._ids, 16 * rows, ids)
                whole = record["number"] == self.done and crc32(ids) == record["crc"][1]
                whole &= moved or _file_crc(spool, "members", rows, count, dim) == record["crc"][0]
                whole &= others < 0 or _file_crc(spool, "rest", rest, others, dim) == record["crc"][2]
            except EOFError:
                whole = False
            if not whole:
                break
            self._counts.append(count)
            self._patch.append(ids[0].astype(np.int32))
            self._joined.append(ids[1].copy())
            rows, rest, taken = rows + count, rest + max(others, 0), taken + 1
        if left is None:
            if taken < len(spool.of_kind("image")):
                spool.keep(head + taken)
        elif taken < self._n_images or spool.size_of("members") < 4 * dim * left:
            raise SpoolCorruptError(
                f"{spool.folder}: data of image {min(taken, self._n_images - 1)} were altered; remove the spool and "
                "begin again"
            )
        self._ids.truncate(16 * rows)
        self._ids.seek(16 * rows)
        return (rows if left is None else left), rest


def _file_crc(spool: Spool, name: str, start: int, count: int, dim: int) -> int:
    """CRC-32 of rows in a file."""
    out = np.empty((count, dim), np.float32)
    with spool.open_file(name) as file:
        read_into(file, 4 * dim * start, out)
    return crc32(out)
