from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from descriptor_sets import shared_patches
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from inreach_fast import kernels
from inreach_fast.kernels import available_backends
from inreach_fast.kernels.registry import cpu_backend
from inreach_fast.method.association import NO_CHANNEL, Associator
from inreach_fast.method.channels import ChannelFilters, MemberRows, Members, filter_streamed
from inreach_fast.storage.row_log import RowLog
from inreach_fast.storage.rows import GatheredRows
from inreach_fast.storage.workspace import Budget, Workspace


def members_of(x: NDArray[np.float32], seeds: list[int], pairs: str = "all") -> tuple[Members, NDArray[np.float32]]:
    """The members of (N, P, D) descriptors and their rows."""
    associator = Associator(np.array(seeds), x[seeds], pairs=pairs)
    joined = np.stack([associator.associate(i, image) for i, image in enumerate(x)])
    is_member = joined != NO_CHANNEL
    is_member[seeds] = True
    row = np.flatnonzero(is_member)
    members = Members(
        np.array(seeds), x.shape[1], is_member.sum(axis=1), (row % x.shape[1]).astype(np.int32), joined.ravel()[row]
    )
    return members, x.reshape(-1, x.shape[2])[row]


def memberships(members: Members) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    pairs = [
        (m, int(c)) for m, both in enumerate(zip(members.own(), members.joined, strict=True)) for c in both if c >= 0
    ]
    member, channel = np.array(pairs, np.int64).T
    return np.ascontiguousarray(member), np.ascontiguousarray(channel)


@pytest.mark.parametrize("backend", available_backends())
@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    seeds=st.sets(st.integers(0, 7), min_size=1, max_size=4),
    dim=st.sampled_from([1, 3, 16, 33]),
    min_length=st.sampled_from([None, 0, 2, 3]),
    max_std=st.sampled_from([None, 1.2, 2.0, 5.0]),
    channels_at_a_time=st.integers(1, 40),
    about_mean=st.booleans(),
    whole=st.booleans(),
    magnitude=st.sampled_from([1e-30, 1.0, 1e30]),
    away=st.sampled_from([0.0, 1e6]),
)
def test_streamed_filters_are_the_kernels_to_the_bit(
    backend: str,
    seed: int,
    seeds: set[int],
    dim: int,
    min_length: int | None,
    max_std: float | None,
    channels_at_a_time: int,
    about_mean: bool,
    whole: bool,
    magnitude: float,
    away: float,
) -> None:
    x = shared_patches(8, 6, dim, seed)
    if whole:  # many ties and duplicates
        x = np.round(x / 4)
    x = ((x + np.float32(away)) * np.float32(magnitude)).astype(np.float32)
    members, rows = members_of(x, sorted(seeds))
    member, channel = memberships(members)
    want = kernels.filter_channels(
        rows, channel, min_length=min_length, max_std=max_std, about_mean=about_mean, rows=member, backend=backend
    ).keep
    filters = ChannelFilters(min_length, max_std, backend, about_mean)
    got = filter_streamed(
        GatheredRows.split(np.full(len(rows), True), rows, rows[:0]),
        members,
        member,
        channel,
        filters,
        channels_at_a_time * 8 * dim,
    )
    assert np.array_equal(got, want)


@pytest.mark.parametrize("backend", available_backends())
def test_sums_and_distances_are_those_of_float64_in_order(backend: str) -> None:
    random = np.random.default_rng(0)
    rows = random.standard_normal((70, 37)).astype(np.float32)
    slots = random.permutation(100)[:70].astype(np.int64)
    slots[::5] = -1
    sums = random.standard_normal((100, 37))
    want = sums.copy()
    for row, slot in zip(rows, slots, strict=True):
        if slot >= 0:
            want[slot] += row
    cpu_backend(backend).add_rows(rows, slots, sums)
    assert np.array_equal(sums, want)
    found = cpu_backend(backend).distances(rows, slots, sums)
    assert np.array_equal(np.isnan(found), slots < 0)
    assert np.array_equal(found, cpu_backend("torch").distances(rows, slots, sums), equal_nan=True)
    used = slots >= 0
    np.testing.assert_allclose(found[used], np.linalg.norm(rows[used] - sums[slots[used]], axis=1))


def test_the_engine_refuses_slots_that_it_could_not_write_to() -> None:
    core = pytest.importorskip("inreach_fast._core")
    rows, sums = np.ones((2, 3), np.float32), np.zeros((4, 3))
    for slots in ([0, 4], [1, 1], [0], [0, 1, 2]):
        with pytest.raises(ValueError, match=r"slot|shapes"):
            core.channel_add(rows, np.array(slots), sums)
        with pytest.raises(ValueError, match=r"slot|shapes"):
            core.channel_distances(rows, np.array(slots), sums)
    with pytest.raises(TypeError):  # a copy would be summed up and thrown away
        core.channel_add(rows, np.array([0, 1]), np.zeros((4, 3), np.float32))
    assert not sums.any()


# ------------------------------------------------------------------------------------------------ where rows lie


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_rows_are_read_from_wherever_they_lie(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    count = data.draw(st.integers(0, 12))
    rows = np.arange(count * 3, dtype=np.float32).reshape(count, 3)
    chosen = np.array(data.draw(st.lists(st.booleans(), min_size=count, max_size=count)), bool)
    cut = data.draw(st.integers(0, count))
    split = GatheredRows.split(chosen, rows[chosen], rows[~chosen])
    tail = RowLog(Workspace(Budget(1 << 20)), "tail", 3, most_rows=count, memory=0)
    tail.append(rows[cut:])
    first = np.arange(count) < cut
    sources: list[MemberRows] = [split, split.taken(np.flatnonzero(first)).followed_by(tail)]
    for memory in (0, 50, 1000):
        log = RowLog(Workspace(Budget(1 << 20)), "rows", 3, most_rows=count, memory=memory)
        for start in range(0, count, 5):
            log.append(rows[start : start + 5])
        sources.append(log)
    start = data.draw(st.integers(0, count))
    stop = data.draw(st.integers(start, count))
    for source in sources:
        assert len(source) == count
        assert source.dim == 3
        assert np.array_equal(source.read(start, stop), rows[start:stop])


def test_a_log_moves_to_its_file_when_it_outgrows_memory(tmp_path: Path) -> None:
    log = RowLog(Workspace(Budget(1 << 20), tmp_path), "rows", 4, most_rows=100, memory=16 * 10)
    log.append(np.ones((7, 4), np.float32))
    assert log.array is not None
    log.append(np.full((7, 4), 2, np.float32))
    assert log.array is None
    assert log.read(5, 9)[:, 0].tolist() == [1, 1, 2, 2]
    assert list(tmp_path.iterdir()) == []  # without a name: gone with the process
    log.close()
