"""The peers' searches: torch.cdist and minima, faiss IndexFlatL2, scikit-learn. All compute in float32; none is exact.

faiss is imported lazily and only here and in baseline.py: its wheel brings an OpenMP runtime of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]

TORCH, FAISS, SKLEARN = "torch.cdist + min", "faiss IndexFlatL2", "scikit-learn brute"
# Rows of the bank in one torch.cdist: the matrix of 3136 x 300,000 distances would take 3.8 GB.
_TORCH_BLOCK = 10_000


def torch_nearest(queries: Rows, bank: Rows) -> Callable[[], Ids]:
    """torch.cdist and its minimum along each row, the bank in blocks."""
    import torch

    q, b = torch.from_numpy(queries), torch.from_numpy(bank)

    def run() -> Ids:
        best = torch.full((len(q),), torch.inf)
        index = torch.full((len(q),), -1, dtype=torch.int64)
        for start in range(0, len(b), _TORCH_BLOCK):
            distance, found = torch.cdist(q, b[start : start + _TORCH_BLOCK]).min(dim=1)
            closer = distance < best
            best = torch.where(closer, distance, best)
            index = torch.where(closer, found + start, index)
        return np.asarray(index.numpy())

    return run


def torch_mutual(a: Rows, b: Rows) -> Callable[[], tuple[Ids, Ids]]:
    """One torch.cdist and its minima along both axes."""
    import torch

    x, y = torch.from_numpy(a), torch.from_numpy(b)

    def run() -> tuple[Ids, Ids]:
        distance = torch.cdist(x, y)
        return np.asarray(distance.min(dim=1).indices.numpy()), np.asarray(distance.min(dim=0).indices.numpy())

    return run


def faiss_nearest(queries: Rows, bank: Rows) -> Callable[[], Ids]:
    """IndexFlatL2; adding the rows is not timed."""
    index = faiss_index(bank)
    return lambda: np.asarray(index.search(queries, 1)[1][:, 0])


def faiss_mutual(a: Rows, b: Rows) -> Callable[[], tuple[Ids, Ids]]:
    """Two searches, one in each index."""
    forward, backward = faiss_nearest(a, b), faiss_nearest(b, a)
    return lambda: (forward(), backward())


def faiss_index(bank: Rows) -> Any:
    """An IndexFlatL2 that holds the bank."""
    import faiss

    index = faiss.IndexFlatL2(bank.shape[1])
    index.add(bank)
    return index


def sklearn_nearest(queries: Rows, bank: Rows) -> Callable[[], Ids]:
    """NearestNeighbors(algorithm="brute")."""
    from sklearn.neighbors import NearestNeighbors

    fitted = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(bank)
    return lambda: np.asarray(fitted.kneighbors(queries, return_distance=False)[:, 0])


def sklearn_mutual(a: Rows, b: Rows) -> Callable[[], tuple[Ids, Ids]]:
    """pairwise_distances_argmin in both directions."""
    from sklearn.metrics import pairwise_distances_argmin

    return lambda: (pairwise_distances_argmin(a, b), pairwise_distances_argmin(b, a))
