"""What the kernels accept, and the typed error for everything else.

Arguments are converted and checked before an engine is asked, so one engine is enough; errors are raised by calls on a
backend that must not be asked at all.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator
from dataclasses import FrozenInstanceError
from typing import Any

import numpy as np
import pytest
from kernel_cases import Engine, check_mutual, check_nearest, gaussian

from inreach_fast import kernels
from inreach_fast.errors import BackendError, DataError, InReachError, MixedSizesError, NonFiniteError, ParameterError
from inreach_fast.kernels.backend import Backend
from inreach_fast.kernels.registry import registered

AUTO = Engine("auto")
GOOD = np.arange(12, dtype=np.float32).reshape(4, 3)


class Unasked(Backend):
    """A backend that fails the test when it is asked."""

    name = "unasked"

    def nearest(self, *arguments: Any, **named: Any) -> Any:
        pytest.fail("the backend was asked")

    mutual_nearest = describe = channel_spread = nearest  # type: ignore[assignment]


@pytest.fixture
def unasked() -> Iterator[str]:
    with registered(Unasked()):
        yield Unasked.name


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f4", "i1", "u1", "i4", "i8", "u8"])
def test_numbers_that_float32_holds_are_taken(dtype: str) -> None:
    values = np.random.default_rng(1).integers(0, 100, (20, 6))
    check_nearest(AUTO, values[:7].astype(dtype), values.astype(dtype))
    check_mutual(AUTO, values[:7].astype(dtype), values.astype(dtype))


def test_lists_and_other_memory_layouts_are_taken() -> None:
    rng = np.random.default_rng(2)
    rows = gaussian(rng, 40, 24)
    for view in (rows[::2], rows[:, ::3], rows[::-1, ::-1], np.asfortranarray(rows), rows.tolist()):
        check_nearest(AUTO, view, view)
        check_mutual(AUTO, view, view)


def test_torch_tensors_are_taken() -> None:
    torch = pytest.importorskip("torch")
    rows = torch.from_numpy(gaussian(np.random.default_rng(3), 20, 8))
    wanted = check_nearest(AUTO, rows.numpy(), rows.numpy())
    np.testing.assert_array_equal(kernels.nearest(rows.requires_grad_(), rows).index, wanted.index)
    half = rows.detach().to(torch.bfloat16)
    wanted = check_nearest(AUTO, half.float().numpy(), half.float().numpy())
    np.testing.assert_array_equal(kernels.nearest(half, half).index, wanted.index)


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        (np.full((2, 3), 0.1), ParameterError),  # float64 that float32 cannot hold
        (np.full((2, 3), 1e300), ParameterError),
        (np.full((2, 3), 2**24 + 1), ParameterError),
        (np.full((2, 3), 2**63 - 1), ParameterError),
        (np.ones((2, 3), complex), ParameterError),
        (np.ones((2, 3), bool), ParameterError),
        (np.array([["a", "b", "c"]]), ParameterError),
        ([[1.0, 2.0, 3.0], [1.0]], ParameterError),
        (None, ParameterError),
        (np.ones(3, np.float32), ParameterError),
        (np.ones((1, 2, 3), np.float32), ParameterError),
        (np.float32(1), ParameterError),
        (np.ones((0, 3), np.float32), DataError),
        (np.ones((2, 0), np.float32), DataError),
        (np.ones((2, 4), np.float32), MixedSizesError),
        (np.array([[0, 1, np.nan]], np.float32), NonFiniteError),
        (np.array([[0, np.inf, 1]], np.float32), NonFiniteError),
        (np.array([[0, -np.inf, 1]]), NonFiniteError),
        (np.array([[0, 1, np.nan]]), NonFiniteError),
    ],
    ids=str,
)
def test_bad_rows(unasked: str, bad: Any, error: type[InReachError]) -> None:
    calls: list[tuple[str, Callable[[], Any]]] = [
        ("queries", lambda: kernels.nearest(bad, GOOD, backend=unasked)),
        ("bank", lambda: kernels.nearest(GOOD, bad, backend=unasked)),
        ("a", lambda: kernels.mutual_nearest(bad, GOOD, backend=unasked)),
        ("b", lambda: kernels.mutual_nearest(GOOD, bad, backend=unasked)),
    ]
    for name, call in calls:
        with pytest.raises(error, match=rf"\b{name}\b"):
            call()


def test_nonfinite_names_the_first_row(unasked: str) -> None:
    rows = np.zeros((9000, 3), np.float32)
    rows[[8765, 5432], 1] = np.nan
    with pytest.raises(NonFiniteError, match=r"queries.*5432"):
        kernels.nearest(rows, GOOD, backend=unasked)


@pytest.mark.parametrize("k", [0, -1, 1.0, True, "1", None])
def test_bad_k(unasked: str, k: Any) -> None:
    with pytest.raises(ParameterError, match="k"):
        kernels.nearest(GOOD, GOOD, k=k, backend=unasked)


@pytest.mark.parametrize("group", [[1, 2, 3], [[1, 2, 3, 4]], [0.5, 1, 2, 3], ["a", "b", "c", "d"]])
def test_bad_groups(unasked: str, group: Any) -> None:
    good = [0, 1, 2, 3]
    with pytest.raises(ParameterError, match="query_group"):
        kernels.nearest(GOOD, GOOD, query_group=group, bank_group=good, backend=unasked)
    with pytest.raises(ParameterError, match="group"):
        kernels.nearest(GOOD, GOOD, query_group=good, bank_group=group, backend=unasked)


def test_query_groups_need_bank_groups(unasked: str) -> None:
    with pytest.raises(ParameterError, match="query_group"):
        kernels.nearest(GOOD, GOOD, query_group=[0, 1, 2, 3], backend=unasked)


@pytest.mark.parametrize("index", [[0, 4], [-1], [0.5], [[0]]])
def test_bad_bank_index(index: Any) -> None:
    with pytest.raises(ParameterError, match="index"):
        kernels.Bank(GOOD, index=index)


def test_unknown_backend() -> None:
    with pytest.raises(BackendError, match=r"native|numba|torch"):
        kernels.nearest(GOOD, GOOD, backend="abacus")
    with pytest.raises(BackendError, match="abacus"):
        kernels.mutual_nearest(GOOD, GOOD, backend="abacus")
    with pytest.raises(BackendError, match="abacus"):
        kernels.filter_channels(GOOD, [0] * 4, min_length=1, max_std=1.0, backend="abacus")


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"channel": [0, 0]}, "channel"),
        ({"channel": [0, 0, 0, -2]}, "channel"),
        ({"channel": [0.5, 0, 0, 0]}, "channel"),
        ({"members": np.ones(4, np.float32)}, "members"),
        ({"members": np.full((4, 3), 0.1)}, "members"),
        ({"rows": [0, 1, 2, 4]}, "rows"),
        ({"rows": [0, 1, 2, -1]}, "rows"),
        ({"rows": [0, 1]}, "channel"),
        ({"min_length": -1}, "min_length"),
        ({"min_length": 1.5}, "min_length"),
        ({"min_length": True}, "min_length"),
        ({"max_std": 0.0}, "max_std"),
        ({"max_std": -1}, "max_std"),
        ({"max_std": float("nan")}, "max_std"),
        ({"max_std": float("inf")}, "max_std"),
        ({"max_std": "5"}, "max_std"),
    ],
    ids=str,
)
def test_bad_filter_arguments(unasked: str, change: dict[str, Any], name: str) -> None:
    arguments = {"members": GOOD, "channel": [0, 0, 0, 1], "min_length": 1, "max_std": 1.0, **change}
    with pytest.raises(ParameterError, match=name):
        kernels.filter_channels(**arguments, backend=unasked)


def test_results_are_immutable_and_travel() -> None:
    results = [
        kernels.nearest(GOOD, GOOD),
        kernels.mutual_nearest(GOOD, GOOD),
        kernels.filter_channels(GOOD, [0] * 4, min_length=1, max_std=None),
    ]
    for result in results:
        again = pickle.loads(pickle.dumps(result))
        for name in type(result).__dataclass_fields__:
            np.testing.assert_array_equal(getattr(again, name), getattr(result, name))
            with pytest.raises(FrozenInstanceError):
                setattr(result, name, None)


def test_a_pickled_bank_gives_the_same_answers() -> None:
    rows = np.random.default_rng(5).random((30, 8), dtype=np.float32)
    bank = kernels.Bank(rows, np.arange(20) // 5, index=np.arange(20)[::-1])
    before = kernels.nearest(rows, bank, k=2, query_group=np.zeros(30, int))
    for again in (pickle.loads(pickle.dumps(bank)), copy.deepcopy(bank)):
        after = kernels.nearest(rows, again, k=2, query_group=np.zeros(30, int))
        assert np.array_equal(before.index, after.index)
        assert np.array_equal(before.sq_distance, after.sq_distance)


def test_a_bank_is_immutable() -> None:
    bank = kernels.Bank(GOOD, [0, 1, 2, 3])
    assert bank.rows is GOOD
    for name in ("rows", "groups", "index", "dim"):
        with pytest.raises(AttributeError):
            setattr(bank, name, None)
    other = bank.with_groups([5, 5, 5, 5])
    assert bank.groups is not None
    assert bank.groups.tolist() == [0, 1, 2, 3]
    assert other.rows is GOOD
