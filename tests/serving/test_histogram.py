"""The histogram of latencies: quantiles within their bound, whatever was recorded; exact counts at powers of two."""

from __future__ import annotations

import math
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inreach_fast.serving import LatencyHistogram
from inreach_fast.serving.histogram import _bucket, _upper


def recorded(*seconds: float) -> LatencyHistogram:
    histogram = LatencyHistogram()
    for value in seconds:
        histogram.record(value)
    return histogram


@given(st.lists(st.floats(0.0, 1e5), min_size=1, max_size=60), st.floats(0.0, 1.0))
def test_a_quantile_is_never_below_the_exact_one_and_hardly_above(seconds: list[float], q: float) -> None:
    rank = max(math.ceil(q * len(seconds)), 1)
    exact = sorted(seconds)[rank - 1]
    found = recorded(*seconds).quantile(q)
    assert exact - 1e-9 * exact <= found <= exact * (1 + 1 / 128) + 1e-6


@given(st.integers(1, 1 << 40))
def test_a_bucket_ends_at_or_above_its_values(ticks: int) -> None:
    bucket = _bucket(ticks)
    assert ticks <= _upper(bucket) <= ticks * (1 + 1 / 128)
    assert _bucket(_upper(bucket)) == bucket
    assert _upper(bucket) == 1 << 40 or _bucket(_upper(bucket) + 1) == bucket + 1


def test_counts_at_powers_of_two_are_exact() -> None:
    bounds = [1 << k for k in range(0, 31, 3)]
    values = [bound + step for bound in bounds for step in (-1, 0, 1) if bound + step > 0]
    histogram = recorded(*(value / 1e6 for value in values))
    assert histogram.at_most(bounds) == [sum(value <= bound for value in values) for bound in bounds]


def test_summary() -> None:
    assert set(recorded().summary().values()) == {0, None}
    assert math.isnan(recorded().quantile(0.5))
    summary = recorded(*(0.001 * value for value in range(1, 1001))).summary()
    assert summary["count"] == 1000
    assert summary["mean_ms"] == pytest.approx(500.5)
    assert summary["p50_ms"] == pytest.approx(500, rel=0.01)
    assert summary["p99_ms"] == pytest.approx(990, rel=0.01)
    assert summary["p99_9_ms"] == pytest.approx(999, rel=0.01)
    assert summary["longest_ms"] == 1000


def test_extreme_durations_have_a_bucket() -> None:
    histogram = recorded(-1.0, 0.0, 1e12)
    assert histogram.count == 3
    assert 0.0 <= histogram.quantile(0.1) <= 1e-6
    assert histogram.quantile(1.0) > 1e6


def test_threads_lose_no_count_and_memory_does_not_grow() -> None:
    histogram = LatencyHistogram()
    values = np.random.default_rng(0).exponential(0.01, 2000).tolist()

    def record() -> None:
        for value in values:
            histogram.record(value)

    threads = [threading.Thread(target=record) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert histogram.count == 8000
    assert int(histogram._counts.sum()) == 8000
    assert histogram._counts.nbytes < 40_000
