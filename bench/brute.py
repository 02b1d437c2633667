"""Brute force: `nearest` on isotropic noise, where nothing can be pruned, against faiss's flat index."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from inreach_fast import kernels

from . import exact, peers
from .records import Case, timed_case
from .search import GOALS_NOISE, RANDOM
from .timing import OURS, race
from .workload import random_rows

SIZES = ((3136, 20_000, 1024), (784, 20_000, 1024), (3136, 20_000, 128))
"""(queries, rows of the bank, values of a row)"""


def run(
    *, quick: bool = False, threads: int | None = None, sizes: tuple[tuple[int, int, int], ...] = SIZES
) -> list[Case]:
    """A case for each of ``sizes``; one thread is timed by its CPU time, so that a busy machine will do."""
    return [case(*size, quick=quick, alone=threads == 1) for size in sizes]


def case(queries: int, rows: int, dim: int, *, quick: bool = False, alone: bool = False) -> Case:
    """Nearest bank row of each query; the `Bank` prepared (faiss: rows added) before."""
    query, bank = random_rows(queries, dim, seed=1), random_rows(rows, dim, seed=2)
    flat, prepared = peers.faiss_index(bank), kernels.Bank(bank)
    contestants: dict[str, Any] = {
        peers.FAISS: lambda: np.asarray(flat.search(query, 1)[1][:, 0]),
        OURS: lambda: kernels.nearest(query, prepared),
    }
    clock = time.process_time if alone else time.perf_counter
    seconds = race(contestants, rounds=3 if quick else 15, budget=10.0 if quick else 40.0, clock=clock)
    found = kernels.nearest(query, prepared)
    rates = (f"{who} {2e-9 * queries * rows * dim / min(values):.3g}" for who, values in seconds.items())
    return timed_case(
        f"nearest, {queries} x {rows} x {dim}{', CPU time' if alone else ''}",
        seconds,
        data=RANDOM,
        goals=GOALS_NOISE,
        checks={
            **exact.check(query, bank, found.index, found.sq_distance, rows),
            "GFLOP/s in the best round": ", ".join(rates),
        },
    )
