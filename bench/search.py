"""`nearest` and `mutual_nearest` against torch.cdist, faiss's indexes and scikit-learn, on features and on noise."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from inreach_fast import kernels

from . import approximate, exact, panorama, peers
from .records import Case, timed_case
from .timing import OURS, race
from .tuned import Tuned
from .workload import Workload, random_rows, scratch_folder

Rows = npt.NDArray[np.float32]

OURS_COLD = "inreach_fast, plain arrays"
RANDOM = "random, isotropic"
# Goals for the ratio of a peer's time to ours: at the size of the goals, at other sizes, and on noise.
GOALS = {peers.FAISS: 25.0, panorama.NAME: 6.0, approximate.HNSW: 1.0}
GOALS_SMALLER = {peers.FAISS: 1.0, peers.TORCH: 2.0}
GOALS_NOISE = {peers.FAISS: 1.0}
# Small sets, where nothing is pruned and the overhead of a call shows: grids of 28 x 28 and 14 x 14.
SMALL_SETS = (784, 196)
GOALS_SMALL_SETS = {peers.FAISS: 1.0, peers.TORCH: 1.0}
_GOAL_SIZE = 300_000
# Above this size, torch and scikit-learn would take most of the bench's time.
_SLOW_PEERS = 100_000


def run(
    work: Workload,
    *,
    quick: bool = False,
    queries: int | None = None,
    banks: tuple[int, ...] | None = None,
    scratch: Path | None = None,
) -> list[Case]:
    """All cases; ``queries`` and ``banks`` (sizes) override those of ``quick``."""
    banks = banks or ((10_000, 30_000) if quick else (10_000, 100_000, 300_000))
    scratch = scratch or scratch_folder()
    cases: list[Case] = []
    for data, query, other, bank in _inputs(work, queries, max(banks)):
        cases.append(mutual_case(query, other, data=data, quick=quick))
        for size in SMALL_SETS:
            if size < len(query):
                cases.append(mutual_case(query[:size], other[:size], data=data, quick=quick, goals=GOALS_SMALL_SETS))
        for size in banks:
            cases.append(nearest_case(query, bank[:size], data=data, quick=quick, scratch=scratch))
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


def nearest_case(query: Rows, bank: Rows, *, data: str, quick: bool = False, scratch: Path | None = None) -> Case:
    """Nearest bank row of each query; the bank prepared (faiss: added) before, and once from plain arrays.

    Panorama and the approximate indexes take part if the data have structure: noise has nothing to prune and no
    neighbourhoods.
    """
    prepared = kernels.Bank(bank)
    found = kernels.nearest(query, prepared)
    noise = data == RANDOM
    flat = peers.faiss_index(bank)
    contestants: dict[str, Any] = {
        peers.FAISS: lambda: np.asarray(flat.search(query, 1)[1][:, 0]),
        OURS: lambda: kernels.nearest(query, prepared),
    }
    tuned = {} if noise else _tuned(query, bank, found.index, flat, scratch or scratch_folder())
    contestants.update({name: peer.run for name, peer in tuned.items()})
    if not noise or len(bank) <= _SLOW_PEERS:
        contestants[peers.TORCH] = peers.torch_nearest(query, bank)
    contestants[OURS_COLD] = lambda: kernels.nearest(query, bank)
    if len(bank) <= (10_000 if noise else _SLOW_PEERS):
        contestants[peers.SKLEARN] = peers.sklearn_nearest(query, bank)
    rounds, warm = _effort(len(bank), quick)
    seconds = race(contestants, rounds=rounds, budget=60, warm=contestants if warm else [OURS, *tuned])
    checks = exact.check(query, bank, found.index, found.sq_distance, len(bank))
    rows = exact.sample(len(query), 32)
    truth = exact.nearest(query[rows], bank)[0]
    wrong = int(np.count_nonzero(contestants[peers.FAISS]()[rows] != truth))
    return timed_case(
        f"nearest, {len(query)} x {len(bank)} x {query.shape[1]}",
        seconds,
        data=data,
        goals=GOALS_NOISE if noise else GOALS if len(bank) >= _GOAL_SIZE else GOALS_SMALLER,
        checks={
            **checks,
            "faiss indices that float64 disagrees with": f"{wrong} of {len(rows)}",
            **{name: peer.words() for name, peer in tuned.items()},
        },
        counts=_counts(found),
        peers={
            name: {"setting": peer.setting, "recall": peer.recall, "tried": peer.tried} for name, peer in tuned.items()
        },
    )


def _tuned(query: Rows, bank: Rows, truth: Any, flat: Any, scratch: Path) -> dict[str, Tuned]:
    """The peers whose settings are tuned; ``truth`` is checked against brute force by the case."""
    found = {
        approximate.HNSW: approximate.hnsw(query, bank, truth, scratch, storage=flat),
        approximate.IVF: approximate.ivf(query, bank, truth, scratch),
    }
    if panorama.available():
        found[panorama.NAME] = panorama.fastest(query, bank, truth)
    return found


def mutual_case(a: Rows, b: Rows, *, data: str, quick: bool = False, goals: Mapping[str, float] | None = None) -> Case:
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
    forward = exact.check(a, b, found.ab_index, found.ab_sq_distance, len(b))
    backward = exact.check(b, a, found.ba_index, found.ba_sq_distance, len(a))
    return timed_case(
        f"mutual_nearest, {len(a)} x {len(b)} x {a.shape[1]}",
        seconds,
        data=data,
        goals=goals or (GOALS_NOISE if data == RANDOM else GOALS_SMALLER),
        checks={f"{key}, {way}": v for way, d in (("a to b", forward), ("b to a", backward)) for key, v in d.items()},
        counts=_counts(found),
    )


def _effort(bank: int, quick: bool) -> tuple[int, bool]:
    """(rounds, whether all are warmed up): fewer if a search takes seconds."""
    if quick:
        return 3, True
    return (7, True) if bank <= 10_000 else (5, False) if bank <= 100_000 else (3, False)


def _counts(found: Any) -> dict[str, Any] | None:
    counts = found.counts
    return None if counts is None else {name: getattr(counts, name) for name in counts.__dataclass_fields__}
