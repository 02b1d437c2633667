"""`filter_channels` against the reference, to the bit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st
from kernel_cases import FAMILIES, Engine, Rows, expected, fuzz, gaussian, same_bits

import inreach_fast
from inreach_fast import kernels
from inreach_fast.errors import NonFiniteError

pytestmark = pytest.mark.engines(pruned=False)


def check(
    engine: Engine,
    members: Any,
    channel: Any,
    min_length: Any,
    max_std: Any,
    rows: Any = None,
    about_mean: bool = False,
) -> kernels.ChannelFilterResult:
    result = kernels.filter_channels(
        members,
        channel,
        min_length=min_length,
        max_std=max_std,
        about_mean=about_mean,
        rows=rows,
        backend=engine.backend,
    )
    wanted = expected("filter_channels", members, channel, min_length, max_std, rows, about_mean)
    same_bits(result.keep, wanted.keep)
    same_bits(result.channels, wanted.channels)
    same_bits(result.length, wanted.length)
    same_bits(result.sigma, wanted.sigma)
    return result


@fuzz(
    family=st.sampled_from(FAMILIES),
    n=st.sampled_from([1, 2, 5, 40, 200]),
    dim=st.sampled_from([1, 3, 15, 16, 17, 40, 100]),
    channels=st.sampled_from([1, 2, 9, 60]),
    min_length=st.sampled_from([None, 0, 1, 3, 10]),
    max_std=st.sampled_from([None, 0.5, 1.0, 1.7, 5.0]),
    by_rows=st.booleans(),
    about_mean=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_shape_and_data(
    engine: Engine,
    family: Callable[[np.random.Generator, int, int], Rows],
    n: int,
    dim: int,
    channels: int,
    min_length: int | None,
    max_std: float | None,
    by_rows: bool,
    about_mean: bool,
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    channel = rng.integers(-1, channels, n) * 7  # -7 becomes -1 below; the other ids have gaps
    members = family(rng, 30 if by_rows else n, dim)
    rows = rng.integers(0, 30, n) if by_rows else None
    check(engine, members, np.maximum(channel, -1), min_length, max_std, rows, about_mean)


@pytest.mark.engines(routes="none")
def test_thread_counts_give_the_same_bits(engine: Engine, threads: None) -> None:
    rng = np.random.default_rng(1)
    members, channel = gaussian(rng, 900, 48), rng.integers(-1, 150, 900)
    for count in (1, 2, 3, 5):
        inreach_fast.set_num_threads(count)
        check(engine, members, channel, 3, 1.4)


def test_the_span_filter_counts_more_than(engine: Engine) -> None:
    members = np.arange(7, dtype=np.float32)[:, None]
    result = check(engine, members, [0, 0, 0, 1, 1, 1, 1], 3, None)
    assert result.channels.tolist() == [1]
    assert result.length.tolist() == [4]
    assert result.keep.tolist() == [False] * 3 + [True] * 4


def test_the_spread_filter_drops_a_far_member_and_the_span_is_tested_again(engine: Engine) -> None:
    # Mean 5, distances 5 5 5 15: sigma = sqrt(18.75) = 4.33.
    members = np.array([[0.0], [0.0], [0.0], [20.0]], np.float32)
    kept = check(engine, members, [4] * 4, 2, 2.0)
    assert kept.keep.tolist() == [True, True, True, False]
    assert (kept.channels.tolist(), kept.length.tolist()) == ([4], [3])
    np.testing.assert_allclose(kept.sigma, [np.sqrt(18.75)])
    assert not check(engine, members, [4] * 4, 3, 2.0).keep.any()


def test_about_their_mean_even_distances_stay_and_a_far_one_goes(engine: Engine) -> None:
    even = gaussian(np.random.default_rng(5), 30, 600)
    assert not check(engine, even, [0] * 30, 3, 5.0).keep.any()
    assert check(engine, even, [0] * 30, 3, 5.0, None, True).keep.all()
    even[11] *= 5
    kept = check(engine, even, [0] * 30, 3, 5.0, None, True)
    assert np.flatnonzero(~kept.keep).tolist() == [11]


def test_a_channel_of_identical_patches_stays(engine: Engine) -> None:
    result = check(engine, np.full((5, 33), 0.1, np.float32), [2] * 5, 3, 5.0)
    assert result.keep.all()
    assert result.sigma.tolist() == [0.0]


def test_all_members_out_is_no_channel(engine: Engine) -> None:
    rng = np.random.default_rng(2)
    result = check(engine, gaussian(rng, 6, 20), [0] * 6, None, 1e-6)
    assert not result.keep.any()
    assert len(result.channels) == 0


@pytest.mark.parametrize("channel", [[], [-1, -1, -1]])
def test_nobody_in_a_channel(engine: Engine, channel: list[int]) -> None:
    members = np.ones((len(channel), 4), np.float32)
    result = check(engine, members, np.array(channel, np.int64), 3, 5.0)
    assert not result.keep.any()


def test_a_row_may_be_in_two_channels(engine: Engine) -> None:
    rng = np.random.default_rng(3)
    members = gaussian(rng, 8, 12)
    check(engine, members, [0] * 6 + [1] * 6, 3, 5.0, [0, 1, 2, 3, 4, 5, 2, 3, 4, 5, 6, 7])


def test_sums_follow_the_order_of_the_members(engine: Engine) -> None:
    # Magnitudes so far apart that every addition rounds: another order is another mean, and other distances.
    rng = np.random.default_rng(4)
    members = (10.0 ** rng.uniform(-7, 7, (400, 40)) * rng.normal(size=(400, 40))).astype(np.float32)
    orders = [np.arange(400), np.arange(400)[::-1], rng.permutation(400)]
    sigmas = {check(engine, members[order], [0] * 400, None, None).sigma[0] for order in orders}
    assert len(sigmas) == 3


def test_long_and_short_channels_together(engine: Engine) -> None:
    rng = np.random.default_rng(5)
    channel = np.concatenate([np.zeros(700, int), np.arange(300) % 90 + 1])
    check(engine, gaussian(rng, 1000, 20), rng.permutation(channel), 3, 1.5)


def test_nonfinite_rows_count_only_inside_a_channel(engine: Engine) -> None:
    members = np.ones((6, 3), np.float32)
    members[2, 1] = np.nan
    assert check(engine, members, [0, 0, -1, 0, 0, 0], 3, 5.0).keep.sum() == 5
    with pytest.raises(NonFiniteError, match="members"):
        kernels.filter_channels(members, [0] * 6, min_length=3, max_std=5.0, backend=engine.backend)
