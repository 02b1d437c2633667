"""Shared by the kernel tests: data that is hard for an inexact search, and comparison with the reference."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import cuda_host.backend
import numpy as np
import reference
from hypothesis import HealthCheck, settings
from numpy.typing import NDArray

from inreach_fast import kernels

Rows = NDArray[np.float32]

# Fixtures set the engine once for all examples of a test, which is what is meant.
_fuzz = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
# Kernels that run thread by thread on the CPU take a hundred times as long: fewer examples for each way through them.
_CASE_EXAMPLES = 15


def fuzz(test: Any) -> Any:
    """Settings of the property tests."""
    inner = test.hypothesis.inner_test
    seen: dict[str, int] = {}
    failed: set[str] = set()

    @functools.wraps(inner)
    def limited(*args: Any, **kwargs: Any) -> None:
        case = getattr(kwargs.get("engine"), "case", None)
        if case is not None and case.name not in failed:  # a failure may be run again as often as it takes
            seen[case.name] = seen.get(case.name, 0) + 1
            if seen[case.name] > _CASE_EXAMPLES:
                return
        try:
            inner(*args, **kwargs)
        except BaseException:
            if case is not None:
                failed.add(case.name)
            raise

    test.hypothesis.inner_test = limited
    return _fuzz(test)


class Engine(NamedTuple):
    """A backend; for the compiled one an instruction set, and whether it must search by bounds; for the CUDA
    kernels on the CPU (tests/cuda_host) a way through them."""

    backend: str
    isa: str | None = None
    pruned: bool = False
    case: cuda_host.backend.Case | None = None

    def fewer(self, rows: int) -> int:
        """Of so many rows as many as kernels that run thread by thread can take: still several tiles of them."""
        return rows if self.case is None else rows // 3


def engines() -> list[Engine]:
    found = []
    for backend in kernels.available_backends():
        if backend == "native":
            from inreach_fast import _core

            found += [Engine(backend, isa, pruned) for isa in _core.isa_levels() for pruned in (False, True)]
        elif backend != cuda_host.backend.NAME:
            found.append(Engine(backend))
    # Without a compiler they are there as well, to be skipped by name (kernels/conftest.py).
    found += [
        Engine(cuda_host.backend.NAME, pruned=bool(case.options.heads), case=case) for case in cuda_host.backend.CASES
    ]
    return found


def same_bits(actual: NDArray[Any], expected: NDArray[Any]) -> None:
    """Equal dtype, shape and bytes: no tolerance anywhere."""
    assert actual.dtype == expected.dtype
    assert actual.shape == expected.shape
    np.testing.assert_array_equal(actual, expected)
    assert actual.tobytes() == np.ascontiguousarray(expected).tobytes()


def check_nearest(
    engine: Engine,
    queries: Any,
    bank: Any,
    k: int = 1,
    query_group: Any = None,
    bank_group: Any = None,
) -> kernels.Nearest:
    """`nearest` and the reference give the same bits."""
    result = kernels.nearest(queries, bank, k=k, query_group=query_group, bank_group=bank_group, backend=engine.backend)
    index, sq_distance = reference.nearest(queries, bank, k, query_group, bank_group)
    same_bits(result.index, index)
    same_bits(result.sq_distance, sq_distance)
    return result


def check_mutual(engine: Engine, a: Any, b: Any) -> kernels.MutualNearest:
    """`mutual_nearest` and the reference give the same bits, in both roles."""
    result = kernels.mutual_nearest(a, b, backend=engine.backend)
    swapped = kernels.mutual_nearest(b, a, backend=engine.backend)
    ab, ab_distance, ba, ba_distance = reference.mutual_nearest(a, b)
    for actual, expected in (
        (result.ab_index, ab),
        (result.ab_sq_distance, ab_distance),
        (result.ba_index, ba),
        (result.ba_sq_distance, ba_distance),
        (swapped.ba_index, ab),
        (swapped.ba_sq_distance, ab_distance),
        (swapped.ab_index, ba),
        (swapped.ab_sq_distance, ba_distance),
    ):
        same_bits(actual, expected)
    for actual, expected in zip(result.pairs(), reference.mutual_pairs(ab, ba), strict=True):
        same_bits(actual, expected)
    return result


# ------------------------------------------------------------------------------------- families of data


def gaussian(rng: np.random.Generator, n: int, dim: int) -> Rows:
    return rng.normal(size=(n, dim)).astype(np.float32)


def small_integers(rng: np.random.Generator, n: int, dim: int) -> Rows:
    """Many exact ties, and exact duplicates."""
    return rng.integers(0, 2, (n, dim)).astype(np.float32)


def duplicates(rng: np.random.Generator, n: int, dim: int) -> Rows:
    return gaussian(rng, max(1, n // 4), dim)[rng.integers(0, max(1, n // 4), n)]


def far_from_origin(rng: np.random.Generator, n: int, dim: int) -> Rows:
    """The expansion |x|^2 + |y|^2 - 2xy loses all its digits here."""
    return (10.0 ** rng.integers(4, 7) + 1e-2 * rng.normal(size=(n, dim))).astype(np.float32)


def far_clusters(rng: np.random.Generator, n: int, dim: int) -> Rows:
    """Tight clusters far apart: centring does not help, and neighbours are nearer than float32 can tell."""
    centres = 100.0 * np.random.default_rng(7).normal(size=(4, dim))
    return (centres[rng.integers(0, 4, n)] + 1e-3 * rng.normal(size=(n, dim))).astype(np.float32)


def permuted_differences(rng: np.random.Generator, n: int, dim: int) -> Rows:
    """Rows that hold the same numbers in another order: only the order of the sums tells them apart."""
    values = np.random.default_rng(8).normal(size=dim).astype(np.float32)
    return np.stack([rng.permutation(values) for _ in range(n)])


def nearly_equidistant(rng: np.random.Generator, n: int, dim: int) -> Rows:
    """Rows on a thin shell: squared distances from the centre agree to about seven digits."""
    direction = rng.normal(size=(n, dim))
    direction /= np.sqrt((direction * direction).sum(axis=1, keepdims=True))
    shell = (direction * (1.0 + 1e-7 * rng.normal(size=(n, 1)))).astype(np.float32)
    shell[rng.random(n) < 0.1] = 0.0
    return shell


def huge(rng: np.random.Generator, n: int, dim: int) -> Rows:
    """Squares overflow float32."""
    return (1e30 * rng.normal(size=(n, dim))).astype(np.float32)


def tiny(rng: np.random.Generator, n: int, dim: int) -> Rows:
    """Squares underflow float32, whole rows are subnormal."""
    return (10.0 ** rng.choice([-30, -40, -44]) * rng.normal(size=(n, dim))).astype(np.float32)


def mixed_magnitudes(rng: np.random.Generator, n: int, dim: int) -> Rows:
    """From subnormal to near the largest float32, row by row."""
    exponent = rng.uniform(-44, 38, (n, 1))
    return (rng.uniform(-1, 1, (n, dim)) * 10.0**exponent).astype(np.float32)


def one_outlier(rng: np.random.Generator, n: int, dim: int) -> Rows:
    rows = gaussian(rng, n, dim)
    rows[rng.integers(n)] *= np.float32(1e20)
    return rows


def constant(rng: np.random.Generator, n: int, dim: int) -> Rows:
    return np.full((n, dim), rng.normal(), np.float32)


FAMILIES = [
    gaussian,
    small_integers,
    duplicates,
    far_from_origin,
    far_clusters,
    permuted_differences,
    nearly_equidistant,
    huge,
    tiny,
    mixed_magnitudes,
    one_outlier,
    constant,
]
