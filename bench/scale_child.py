"""One contestant of the scaling bench in its own process: `python -m bench.scale_child PARTY FILES ...`.

It prepares its bank, then searches each time it reads a line, and prints seconds and memory as a line of JSON. So
contestants take turns and the memory of each is measured separately. Ours maps rows and index from disk and imports
neither torch nor faiss.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from . import resident
from .children import reply_channel
from .timing import OURS

Rows = npt.NDArray[np.float32]
MANIFEST = "index.json"
BUILD = "build"
_ADDED_AT_ONCE = 65_536


def main() -> None:
    """Parse the options, prepare, answer each line with a line until the input ends."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("contestant", help=f"{BUILD}, {OURS!r} or a peer")
    parser.add_argument("--rows", type=Path, required=True, help="raw float32 rows")
    parser.add_argument("--count", type=int, required=True, help="how many of them are the bank")
    parser.add_argument("--dim", type=int, required=True)
    parser.add_argument("--queries", type=Path, required=True, help="raw float32 rows")
    parser.add_argument("--index", type=Path, required=True, help="folder of our index")
    parser.add_argument("--answers", type=Path, help="where index and distance of the last search go (.npz)")
    parser.add_argument("--scratch", type=Path, help="where built peers are cached")
    parser.add_argument("--memory-limit", type=int, default=1 << 30, help="bytes, while our index is built")
    options = parser.parse_args()
    send = reply_channel()
    bank = np.memmap(options.rows, dtype=np.float32, mode="r", shape=(options.count, options.dim))
    if options.contestant == BUILD:
        _, memory = resident.watched(lambda: build(bank, options.index, options.memory_limit))
        send({**memory, "bytes": sum(file.stat().st_size for file in options.index.glob("*"))})
        return
    queries = np.fromfile(options.queries, dtype=np.float32).reshape(-1, options.dim)
    start = time.perf_counter()
    search, words = prepare(options.contestant, bank, queries, options)
    send({"prepare_seconds": time.perf_counter() - start, "words": words, **resident.split()})
    for _ in sys.stdin:
        start = time.perf_counter()
        found = search()
        seconds = time.perf_counter() - start
        if options.answers and options.contestant == OURS:
            np.savez(options.answers, index=found.index, sq_distance=found.sq_distance)
        reply = {"seconds": seconds, "peak": resident.high_water(), **resident.split()}
        if options.contestant == OURS:
            reply["counts"] = found.counts and vars(found.counts)
            reply["modules"] = [name for name in ("torch", "faiss") if name in sys.modules]
        send(reply)


def build(bank: Rows, folder: Path, memory_limit: int) -> None:
    """Write our index of the rows to ``folder``: .npy files and a list of their names; nothing without an index."""
    from inreach_fast import kernels

    folder.mkdir(parents=True, exist_ok=True)
    arrays = kernels.Bank(bank).index_arrays(folder=folder, memory_limit=memory_limit)
    for name, array in arrays.items():
        if not (folder / f"{name}.npy").is_file():  # the engine writes the large ones to files
            np.save(folder / f"{name}.npy", array)
    (folder / MANIFEST).write_text(json.dumps(sorted(arrays)), encoding="utf-8")


def mapped_index(folder: Path) -> dict[str, npt.NDArray[Any]]:
    """The files of `build`, memory-mapped."""
    return {name: _mapped(folder / f"{name}.npy") for name in json.loads((folder / MANIFEST).read_text("utf-8"))}


def _mapped(file: Path) -> npt.NDArray[Any]:
    try:
        return np.load(file, mmap_mode="r")
    except ValueError:  # an empty file cannot be mapped
        return np.load(file)


def prepare(contestant: str, bank: Rows, queries: Rows, options: Any) -> tuple[Callable[[], Any], str]:
    """A function that searches all queries, and its settings in words."""
    if contestant == OURS:
        from inreach_fast import kernels

        if (options.index / MANIFEST).is_file():
            prepared = kernels.Bank(bank, index_arrays=mapped_index(options.index))
        else:
            prepared = kernels.Bank(bank)
        return lambda: kernels.nearest(queries, prepared), ""
    from . import approximate, panorama, peers

    if contestant == peers.FAISS:
        import faiss

        flat = faiss.IndexFlatL2(bank.shape[1])
        for first in range(0, len(bank), _ADDED_AT_ONCE):
            flat.add(np.ascontiguousarray(bank[first : first + _ADDED_AT_ONCE]))
        return lambda: flat.search(queries, 1), ""
    if contestant == peers.TORCH:
        return peers.torch_nearest(queries, np.array(bank)), ""
    if contestant == peers.SKLEARN:
        return peers.sklearn_nearest(queries, np.array(bank)), ""
    truth = np.load(options.answers)["index"]
    rows = np.array(bank)
    tuned = {
        panorama.NAME: lambda: panorama.fastest(queries, rows, truth),
        approximate.HNSW: lambda: approximate.hnsw(queries, rows, truth, options.scratch),
        approximate.IVF: lambda: approximate.ivf(queries, rows, truth, options.scratch),
    }[contestant]()
    return tuned.run, tuned.words()


if __name__ == "__main__":
    main()
