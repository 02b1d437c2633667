"""`nearest` and `mutual_nearest` against torch.cdist, faiss and scikit-learn, on random rows and on features."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from inreach_fast import kernels

from . import exact, peers
from .records import Case, timed_case
from .timing import OURS, race
from .workload import Workload, random_rows

Rows = npt.NDArray[np.float32]

OURS_COLD = "inreach_fast, plain arrays"
RANDOM = "random, isotropic"
_GOAL = "faiss 1x, torch 2x"


def run(
    work: Workload, *, quick: bool = False, queries: int | None = None, banks: tuple[int, ...] | None = None
) -> list[Case]:
    """All cases; ``queries`` and ``banks`` (sizes) override the ones that ``quick`` implies."""
    banks = banks or ((10_000,) if quick else (10_000, 100_000, 300_000))
    cases: list[Case] = []
    for data, query, other, bank in _inputs(work, queries, max(banks)):
        cases.append(mutual_case(query, other, data=data, quick=quick))
        for size in banks:
            cases.append(nearest_case(query, bank[:size], data=data, quick=quick))
    return cases


def _inputs(work: Workload, queries: int | None, bank_size: int) -> Iterator[tuple[str, Rows, Rows, Rows]]:
    """(what it is, an unseen image's rows, another image's rows, a bank) of features, then of random rows."""
    query = work.describe(work.test_images(1)[0])[:queries]
    patches = len(work.describe(work.training_images(1)[0]))
    bank = work.descriptors(-(-bank_size // patches)).reshape(-1, query.shape[1])[:bank_size]
    work.drop_descriptors()
    yield work.features, query, bank[: len(query)], bank
    del bank
    rows, dim = query.shape
    bank = random_rows(bank_size, dim, seed=2)
    yield RANDOM, random_rows(rows, dim, seed=1), bank[:rows], bank


def nearest_case(query: Rows, bank: Rows, *, data: str, quick: bool = False) -> Case:
    """Nearest bank row of each query; the bank prepared (faiss: added) before, and once from plain arrays."""
    prepared = kernels.Bank(bank)
    contestants: dict[str, Any] = {
        peers.FAISS: peers.faiss_nearest(query, bank),
        OURS: lambda: kernels.nearest(query, prepared),
        peers.TORCH: peers.torch_nearest(query, bank),
        OURS_COLD: lambda: kernels.nearest(query, bank),
    }
    if len(bank) <= 10_000:
        contestants[peers.SKLEARN] = peers.sklearn_nearest(query, bank)
    rounds, warm = _effort(len(bank), quick)
    seconds = race(contestants, rounds=rounds, budget=45, warm=contestants if warm else [OURS])
    found = kernels.nearest(query, prepared)
    checks = _check(query, bank, found.index, found.sq_distance, len(bank))
    rows = exact.sample(len(query), 32)
    truth = exact.nearest(query[rows], bank)[0]
    wrong = int(np.count_nonzero(contestants[peers.FAISS]()[rows] != truth))
    return timed_case(
        f"nearest, {len(query)} x {len(bank)} x {query.shape[1]}",
        seconds,
        data=data,
        goal=_GOAL,
        checks={**checks, "faiss indices that float64 disagrees with": f"{wrong} of {len(rows)}"},
        counts=_counts(found),
    )


def mutual_case(a: Rows, b: Rows, *, data: str, quick: bool = False) -> Case:
    """Nearest rows in both directions; the Banks prepared before, and once from plain arrays."""
    bank_a, bank_b = kernels.Bank(a), kernels.Bank(b)
    contestants: dict[str, Any] = {
        peers.FAISS: peers.faiss_mutual(a, b),
        OURS: lambda: kernels.mutual_nearest(bank_a, bank_b),
        peers.TORCH: peers.torch_mutual(a, b),
        OURS_COLD: lambda: kernels.mutual_nearest(a, b),
        peers.SKLEARN: peers.sklearn_mutual(a, b),
    }
    seconds = race(contestants, rounds=3 if quick else 9, budget=30)
    found = kernels.mutual_nearest(bank_a, bank_b)
    forward = _check(a, b, found.ab_index, found.ab_sq_distance, len(b))
    backward = _check(b, a, found.ba_index, found.ba_sq_distance, len(a))
    return timed_case(
        f"mutual_nearest, {len(a)} x {len(b)} x {a.shape[1]}",
        seconds,
        data=data,
        goal=_GOAL,
        checks={f"{key}, {way}": v for way, d in (("a to b", forward), ("b to a", backward)) for key, v in d.items()},
        counts=_counts(found),
    )


def _effort(bank: int, quick: bool) -> tuple[int, bool]:
    """(rounds, whether everybody is warmed up): less where one search takes seconds."""
    if quick:
        return 3, True
    return (7, True) if bank <= 10_000 else (5, False) if bank <= 100_000 else (3, False)


def _check(query: Rows, bank: Rows, index: Any, sq_distance: Any, size: int) -> dict[str, str]:
    rows = exact.sample(len(query), 64 if size > 50_000 else 256)
    true_index, true_distance = exact.nearest(query[rows], bank)
    right = (index[rows] == true_index) & (sq_distance[rows] == true_distance)
    return {"equal to float64 brute force, index and bits": f"{int(right.sum())} of {len(rows)}"}


def _counts(found: Any) -> dict[str, Any] | None:
    counts = found.counts
    return None if counts is None else {name: getattr(counts, name) for name in counts.__dataclass_fields__}
