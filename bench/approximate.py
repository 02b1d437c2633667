"""faiss's approximate indexes, IndexHNSWFlat and IndexIVFFlat, each at the lowest effort that reaches a recall.

The effort (efSearch, nprobe) is doubled until the recall is reached on the same queries that are timed, then lowered by
bisection between the last two. If no effort up to the limit reaches it, or only one that takes too long, as on
isotropic noise, the table gives the recall that was reached.

Building is not timed and takes minutes. What is built is kept in a folder, under a name made of a digest of the rows
and the parameters, and read by later runs. HNSW's graph is kept without its rows, IVF's centroids without its lists.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .tuned import Tuned, recall

Rows = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]

HNSW, IVF = "faiss IndexHNSWFlat", "faiss IndexIVFFlat"
RECALL = 0.99
HNSW_LINKS, HNSW_CONSTRUCTION = 32, 100
_MOST_HNSW = 2048
# Seconds of one search above which no higher effort is tried.
_PATIENCE = 20.0
# Rows per centroid that k-means is trained on; faiss's own limit is 256, which takes four times as long.
_TRAINING_ROWS = 64


def hnsw(queries: Rows, bank: Rows, truth: Ids, folder: Path, target: float = RECALL, storage: Any = None) -> Tuned:
    """IndexHNSWFlat (M 32, efConstruction 100) at the lowest efSearch that reaches ``target``.

    Args:
        queries: (m, D). bank: (n, D). truth: int64 (m,), the nearest rows.
        folder: where the graph is kept between runs.
        target: recall to reach.
        storage: an IndexFlatL2 that holds the bank, to be shared; None makes one.
    """
    import faiss

    begun = time.perf_counter()
    name = f"hnsw-{HNSW_LINKS}-{HNSW_CONSTRUCTION}-{_digest(bank)}.faiss"
    path = folder / name
    cached = path.is_file()
    if cached:
        index = faiss.read_index(str(path), faiss.IO_FLAG_SKIP_STORAGE)
        if storage is None:
            storage = faiss.IndexFlatL2(bank.shape[1])
            storage.add(bank)
        index.storage, index.own_fields = storage, False
        index.referenced_objects = [storage]  # the index does not own it
    else:
        index = faiss.IndexHNSWFlat(bank.shape[1], HNSW_LINKS)
        index.hnsw.efConstruction = HNSW_CONSTRUCTION
        index.add(bank)
        _write(index, path, faiss.IO_FLAG_SKIP_STORAGE)
    built = time.perf_counter() - begun

    def search(effort: int) -> Ids:
        index.hnsw.efSearch = effort
        return np.asarray(index.search(queries, 1)[1][:, 0])

    effort, reached, tried = _least_effort(search, queries, bank, truth, target, 8, min(_MOST_HNSW, len(bank)))
    return Tuned(lambda: search(effort), f"efSearch {effort}", reached, built, cached, tried)


def ivf(queries: Rows, bank: Rows, truth: Ids, folder: Path, target: float = RECALL) -> Tuned:
    """IndexIVFFlat (4 √n lists) at the lowest nprobe that reaches ``target``; arguments as in `hnsw`."""
    import faiss

    begun = time.perf_counter()
    lists = max(1, int(4 * np.sqrt(len(bank))))
    lists = min(lists, len(bank))
    path = folder / f"ivf-{lists}-{_TRAINING_ROWS}-{_digest(bank)}.faiss"
    cached = path.is_file()
    if cached:
        index = faiss.read_index(str(path))
    else:
        quantizer = faiss.IndexFlatL2(bank.shape[1])
        index = faiss.IndexIVFFlat(quantizer, bank.shape[1], lists)
        index.cp.max_points_per_centroid = _TRAINING_ROWS
        index.cp.min_points_per_centroid = 1  # no warning on tiny banks
        index.train(bank)
        _write(index, path)
    index.add(bank)
    built = time.perf_counter() - begun

    def search(effort: int) -> Ids:
        index.nprobe = effort
        return np.asarray(index.search(queries, 1)[1][:, 0])

    effort, reached, tried = _least_effort(search, queries, bank, truth, target, 1, lists)
    return Tuned(lambda: search(effort), f"{lists} lists, nprobe {effort}", reached, built, cached, tried)


def _least_effort(
    search: Callable[[int], Ids], queries: Rows, bank: Rows, truth: Ids, target: float, first: int, most: int
) -> tuple[int, float, dict[str, float]]:
    """The lowest effort in [first, most] that reaches the recall, found by doubling and three steps of bisection."""
    tried: dict[int, float] = {}
    longest = 0.0

    def enough(effort: int) -> bool:
        nonlocal longest
        begun = time.perf_counter()
        found = search(effort)
        longest = max(longest, time.perf_counter() - begun)
        tried[effort] = recall(queries, bank, found, truth)
        return tried[effort] >= target

    low, high = 0, min(first, most)
    while not enough(high):
        if high == most or longest > _PATIENCE:
            # Out of reach: the lowest effort that gives the highest recall found.
            best = max(tried.values())
            effort = min(e for e, r in tried.items() if r == best)
            return effort, best, {str(e): r for e, r in tried.items()}
        low, high = high, min(2 * high, most)
    for _ in range(3):
        middle = (low + high) // 2
        if middle in (low, high):
            break
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high, tried[high], {str(e): tried[e] for e in sorted(tried)}


def _digest(bank: Rows) -> str:
    """Digest of the rows and of the faiss version."""
    import faiss

    digest = hashlib.sha256(f"{faiss.__version__} {bank.shape}".encode())
    digest.update(np.ascontiguousarray(bank).data)
    return digest.hexdigest()[:16]


def _write(index: Any, path: Path, flags: int = 0) -> None:
    import faiss

    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(".partial")
    faiss.write_index(index, str(aside), flags)
    aside.replace(path)
