"""Shared by the kernel tests: data that is hard for an inexact search, and comparison with the reference."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import cuda_host.backend
import cuda_host.build
import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis.strategies import SearchStrategy
from numpy.typing import NDArray

from inreach_fast import kernels

Rows = NDArray[np.float32]

_EXAMPLES = 40
# The CUDA kernels run thread by thread here, a hundred times slower; there are many routes, which share the properties.
_ROUTE_EXAMPLES = 6


class Engine(NamedTuple):
    """A backend; for the compiled one an instruction set, and whether it must search by bounds; for the CUDA
    kernels on the CPU (tests/cuda_host) a route through them."""

    backend: str
    isa: str | None = None
    pruned: bool = False
    case: cuda_host.backend.Case | None = None

    def __str__(self) -> str:
        if self.case is not None:
            return f"{self.backend}-{self.case.name}"
        return "-".join(filter(None, (self.backend, self.isa, "pruned" if self.pruned else None)))

    def fewer(self, rows: int) -> int:
        """A number of rows or values that fits the engine: a quarter of it for the CUDA kernels."""
        return rows if self.case is None else rows // 4

    @property
    def examples(self) -> int:
        """Examples of a property."""
        return _EXAMPLES if self.case is None else _ROUTE_EXAMPLES


def cpu_engines(*, pruned: bool = True) -> list[Engine]:
    """The CPU's backends, the compiled one in each instruction set; with ``pruned`` also by bounds."""
    found = []
    for backend in kernels.available_backends():
        if backend == "native":
            from inreach_fast import _core

            kinds = (False, True) if pruned else (False,)
            found += [Engine(backend, isa, kind) for isa in _core.isa_levels() for kind in kinds]
        elif not kernels.is_gpu_name(backend) and backend != cuda_host.backend.NAME:
            found.append(Engine(backend))
    return found


def cuda_engines(routes: str) -> list[Engine]:
    """The CUDA kernels on the CPU: by "every" route, one for each of the "filters", a "few", "one", or "none"."""
    cases = cuda_host.backend.CASES_OF[routes]
    return [Engine(cuda_host.backend.NAME, pruned=bool(case.options.heads), case=case) for case in cases]


@contextlib.contextmanager
def running(engine: Engine) -> Iterator[None]:
    """Inside, a call with ``backend=engine.backend`` takes this instruction set or this route."""
    if engine.case is not None:
        if cuda_host.build.compiler() is None:
            pytest.skip(cuda_host.build.NO_COMPILER)
        with cuda_host.backend.registered(engine.case):
            yield
    elif engine.isa is None:
        yield
    else:
        from inreach_fast import _core

        before = _core.isa()
        _core.set_isa(engine.isa)
        try:
            yield
        finally:
            _core.set_isa(before)


def fuzz(**strategies: SearchStrategy[Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A property test: `hypothesis.given` of these strategies, with as many examples as the test's engine has time for.

    Arguments without a strategy are fixtures.
    """

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        def run(**fixtures: Any) -> None:
            engine = fixtures.get("engine")
            limit = settings(max_examples=_EXAMPLES if engine is None else engine.examples)
            limit(given(**strategies)(test))(**fixtures)

        signature = inspect.signature(test)
        fixtures = [p for name, p in signature.parameters.items() if name not in strategies]
        functools.update_wrapper(run, test)
        run.__signature__ = signature.replace(parameters=fixtures)  # type: ignore[attr-defined]
        return run

    return decorate


# What the reference says of the same rows is worked out once for all engines.
@functools.lru_cache(maxsize=64)
def _reference(name: str, arguments: tuple[_Key, ...]) -> Any:
    return getattr(reference, name)(*(key.value for key in arguments))


class _Key:
    """An argument of the reference, equal to another of the same content."""

    def __init__(self, value: Any) -> None:
        self.value = np.array(value) if isinstance(value, (list, np.ndarray)) else value
        array = isinstance(self.value, np.ndarray)
        self._content = (self.value.shape, self.value.dtype, self.value.tobytes()) if array else value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Key) and self._content == other._content

    def __hash__(self) -> int:
        return hash(self._content)


def expected(name: str, *arguments: Any) -> Any:
    """``reference.<name>(*arguments)``, which is remembered: not to be changed in place."""
    return _reference(name, tuple(map(_Key, arguments)))


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
    bank_floor: Any = None,
    hint: Any = None,
) -> kernels.Nearest:
    """`nearest` and the reference give the same bits."""
    result = kernels.nearest(
        queries,
        bank,
        k=k,
        query_group=query_group,
        bank_group=bank_group,
        bank_floor=bank_floor,
        hint=hint,
        backend=engine.backend,
    )
    index, sq_distance = expected("nearest", queries, bank, k, query_group, bank_group, bank_floor)
    same_bits(result.index, index)
    same_bits(result.sq_distance, sq_distance)
    return result


def check_mutual(engine: Engine, a: Any, b: Any) -> kernels.MutualNearest:
    """`mutual_nearest` and the reference give the same bits, in both roles."""
    result = kernels.mutual_nearest(a, b, backend=engine.backend)
    swapped = kernels.mutual_nearest(b, a, backend=engine.backend)
    ab, ab_distance, ba, ba_distance = expected("mutual_nearest", a, b)
    for actual, wanted in (
        (result.ab_index, ab),
        (result.ab_sq_distance, ab_distance),
        (result.ba_index, ba),
        (result.ba_sq_distance, ba_distance),
        (swapped.ba_index, ab),
        (swapped.ba_sq_distance, ab_distance),
        (swapped.ab_index, ba),
        (swapped.ab_sq_distance, ba_distance),
    ):
        same_bits(actual, wanted)
    for actual, wanted in zip(result.pairs(), reference.mutual_pairs(ab, ba), strict=True):
        same_bits(actual, wanted)
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
