"""The compiled engine's search index in files: built there within a memory limit, and mapped from there."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from ... import _core
from ...array_types import Array
from ..bank import Bank

_BUILD_BYTES = 1 << 30  # where no limit is given


def build_in(folder: Path, bank: Bank, basis: _core.Basis, memory_limit: int | None) -> dict[str, Array]:
    """Builds the index's arrays, each in a file of its own and mapped."""
    heads, heads_file = None, folder / "heads.tmp"
    arrays: dict[str, Array] = {}
    if memory_limit is not None and len(bank) * _core.LeafBuilder.HEAD_FLOATS * 4 > memory_limit // 2:
        heads = np.memmap(heads_file, np.float32, "w+", shape=(len(bank), _core.LeafBuilder.HEAD_FLOATS))
        _reserve_space(heads_file)
    try:
        limit = _BUILD_BYTES if memory_limit is None else memory_limit
        plain = None if heads is None else heads.view(np.ndarray)
        builder = _core.LeafBuilder(basis, bank.rows, bank.index, bank.mapped, limit, plain)
        for name, dtype, count in builder.shapes():
            path = folder / f"{name}.npy"
            if count == 0:
                arrays[name] = np.empty(0, dtype)
            else:
                arrays[name] = np.lib.format.open_memmap(path, "w+", dtype, (count,)).view(np.ndarray)
                _reserve_space(path)
        builder.fill(arrays)
    except BaseException:  # a full disk, Ctrl-C: no half-written array stays
        names = list(arrays)
        arrays.clear()  # what is mapped cannot be deleted on Windows
        for name in names:
            (folder / f"{name}.npy").unlink(missing_ok=True)
        raise
    finally:
        del heads
        heads_file.unlink(missing_ok=True)
    return _mapped(folder, arrays)


def write_to(folder: Path, arrays: dict[str, Array]) -> dict[str, Array]:
    """Writes an index's arrays and maps them."""
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    return _mapped(folder, arrays)


def _reserve_space(path: Path) -> None:
    """Reserves disk space for a file that is written through a map; OSError where the disk is full.

    Otherwise the system would end the process (SIGBUS) when space runs out.
    """
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)


def _mapped(folder: Path, arrays: dict[str, Array]) -> dict[str, Array]:
    return {  # an empty file cannot be mapped
        name: np.load(folder / f"{name}.npy", mmap_mode="r").view(np.ndarray) if array.size else array
        for name, array in arrays.items()
    }
