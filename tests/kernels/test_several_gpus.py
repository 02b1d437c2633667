"""A bank that several devices share gives the whole bank's answer, to the bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import reference
from kernel_cases import FAMILIES, same_bits

from inreach_fast.errors import GpuLostError
from inreach_fast.kernels import Bank, registry
from inreach_fast.kernels.gpu.backends import SeveralGpus


def _shared(devices: int) -> SeveralGpus:
    worker: Any = registry.backends["auto"]
    return SeveralGpus("shared", [worker] * devices)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f.__name__)
@pytest.mark.parametrize("devices", [1, 2, 5])
def test_answers_are_the_whole_banks(family: Any, devices: int) -> None:
    rng = np.random.default_rng(devices)
    queries, rows = family(rng, 13, 19), family(rng, 90, 19)
    q_group, groups = np.arange(13) % 4, np.arange(90) % 4
    shared = _shared(devices)
    index = rng.permutation(90)[:71].astype(np.int64)
    for bank, chosen in ((Bank(rows, groups), rows), (Bank(rows, groups[index], index=index), rows[index])):
        for k in (1, 3, 200):
            found = shared.nearest(Bank(queries), bank, k, q_group)
            expected, distance = reference.nearest(queries, chosen, k, q_group, bank.groups)
            same_bits(found.index, expected.reshape(13, k))
            same_bits(found.sq_distance, distance.reshape(13, k))
        mutual = shared.mutual_nearest(Bank(queries), bank)
        for ours, theirs in zip(
            (mutual.ab_index, mutual.ab_sq_distance, mutual.ba_index, mutual.ba_sq_distance),
            reference.mutual_nearest(queries, chosen),
            strict=True,
        ):
            same_bits(ours, theirs)


def test_equal_float32_distances_are_told_apart_by_float64() -> None:
    query = np.zeros((1, 2), np.float32)
    # Squared: 1 + 2^-50 and 1 + 2^-52, both 1 in float32; the farther one has the lower number.
    rows = np.array([[1, 2.0**-25], [5, 5], [1, 2.0**-26], [5, 5]], np.float32)
    found = _shared(2).nearest(Bank(query), Bank(rows), 2, None)
    assert found.index.tolist() == [[2, 0]]
    assert found.sq_distance.tolist() == [[1.0, 1.0]]


def test_groups_may_change_between_calls() -> None:
    rows = np.arange(6, dtype=np.float32)[:, None]
    shared, bank = _shared(2), Bank(rows)
    same = np.zeros(1, np.int64)
    for groups, expected in (([0, 0, 0, 0, 1, 1], 4), ([0, 0, 0, 1, 1, 1], 3), (None, 0)):
        found = shared.nearest(Bank(rows[:1]), bank.with_groups(groups), 1, same)
        assert found.index.tolist() == [[expected]]


def test_an_error_of_one_device_is_the_calls() -> None:
    class Lost:
        def nearest(self, *_: Any) -> Any:
            raise GpuLostError("GPU 1: lost")

    worker: Any = registry.backends["auto"]
    lost: Any = Lost()
    rows = np.ones((4, 2), np.float32)
    with pytest.raises(GpuLostError, match="GPU 1"):
        SeveralGpus("shared", [worker, lost]).nearest(Bank(rows), Bank(rows), 1, None)
