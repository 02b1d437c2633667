"""faiss's IndexFlatL2Panorama, an exact search that prunes, at its best settings for the given rows.

It needs rows whose leading coordinates hold most of their length: they are centred and rotated to the principal
directions of a sample. A rotation and a shift change no distance, so answers are those of a flat index up to float32
rounding. Every choice favours Panorama: levels and batch are tried on some of the same queries that are timed, and
neither the rotation of the bank nor that of the queries is timed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .tuned import Tuned, recall

Rows = npt.NDArray[np.float32]

NAME = "faiss IndexFlatL2Panorama, rotated"
LEVELS = (8, 16, 32, 64, 128)
# Rows of the index that are stored together; the first is faiss's default.
BATCHES = (128, 512, 1024)
_SAMPLE, _TRIED_QUERIES, _BLOCK = 20_000, 512, 65_536


def available() -> bool:
    """Whether the installed faiss has the index (1.13 and later)."""
    import faiss

    return hasattr(faiss, "IndexFlatL2Panorama")


def principal_frame(bank: Rows, sample: int = _SAMPLE, seed: int = 0) -> tuple[Rows, Rows]:
    """Mean (D,) and principal directions (D, D), one a column, the strongest first, of a seeded sample of rows."""
    chosen = np.sort(np.random.default_rng(seed).choice(len(bank), size=min(len(bank), sample), replace=False))
    rows = bank[chosen].astype(np.float64)
    mean = rows.mean(axis=0)
    rows -= mean
    _, directions = np.linalg.eigh(rows.T @ rows)
    return mean.astype(np.float32), np.ascontiguousarray(directions[:, ::-1], dtype=np.float32)


def rotate(rows: Rows, frame: tuple[Rows, Rows]) -> Rows:
    """Rows (n, D) in that frame, in blocks."""
    mean, directions = frame
    out = np.empty_like(rows)
    for start in range(0, len(rows), _BLOCK):
        np.matmul(rows[start : start + _BLOCK] - mean, directions, out=out[start : start + _BLOCK])
    return out


def fastest(
    queries: Rows, bank: Rows, truth: npt.NDArray[np.int64], levels: Sequence[int] = LEVELS, tried: int = _TRIED_QUERIES
) -> Tuned:
    """The index with the levels, then with the batch, that search a sample of the queries fastest.

    Args:
        queries: (m, D), all searched in the race.
        bank: (n, D).
        truth: int64 (m,), the nearest rows, for the recall.
        levels: numbers of levels to try; those above D are skipped.
        tried: how many of the queries the settings are tried on.
    """
    begun = time.perf_counter()
    frame = principal_frame(bank)
    rotated, asked = rotate(bank, frame), rotate(queries, frame)
    sample = np.ascontiguousarray(asked[:: max(1, len(asked) // tried)])
    seconds: dict[tuple[int, int], float] = {}
    best: tuple[float, tuple[int, int], Any] | None = None

    def attempt(setting: tuple[int, int]) -> None:
        nonlocal best
        index = _index(rotated, *setting)
        seconds[setting] = min(_seconds(lambda: index.search(sample, 1)) for _ in range(2))
        if best is None or seconds[setting] < best[0]:
            best = (seconds[setting], setting, index)

    for number in [n for n in levels if n <= bank.shape[1]]:
        attempt((number, BATCHES[1]))
    assert best is not None
    for batch in (BATCHES[0], BATCHES[2]):
        attempt((best[1][0], batch))
    _, (number, batch), index = best

    def run() -> npt.NDArray[np.int64]:
        return np.asarray(index.search(asked, 1)[1][:, 0])

    return Tuned(
        run,
        setting=f"{number} levels, batches of {batch}",
        recall=recall(queries, bank, run(), truth),
        build_seconds=time.perf_counter() - begun,
        tried={f"{n} levels, {b} rows": s for (n, b), s in seconds.items()},
    )


def _index(rows: Rows, levels: int, batch: int) -> Any:
    import faiss

    index = faiss.IndexFlatL2Panorama(rows.shape[1], levels, batch)
    index.add(rows)
    return index


def _seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
