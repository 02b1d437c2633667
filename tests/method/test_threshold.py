from __future__ import annotations

import hashlib
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from inreach_fast.errors import ParameterError
from inreach_fast.method.threshold import (
    DEVIATIONS,
    LEAST_DEVIATION,
    MOST_ABOVE,
    SMALL_SAMPLE,
    ranked_images,
    robust_threshold,
    sample_images,
)


@settings(max_examples=200, deadline=None)
@given(good=st.lists(st.floats(0.1, 10), min_size=3, max_size=40), share=st.floats(0, 0.4), data=st.data())
def test_forty_percent_of_any_higher_scores_cannot_move_it_far(
    good: list[float], share: float, data: st.DataObject
) -> None:
    most = int(share * len(good) / (1 - share) + 1e-9)
    defects = data.draw(st.lists(st.floats(max(good), 1e30), min_size=most, max_size=most))
    low, high = math.log(min(good)), math.log(max(good))
    bound = high + DEVIATIONS * (1 + SMALL_SAMPLE) * max(high - low, LEAST_DEVIATION)
    assert math.log(robust_threshold(good + defects)) <= bound + 1e-9
    assert robust_threshold(good + defects) >= min(good)


@pytest.mark.parametrize("n", [5, 10, 24, 64])
@pytest.mark.parametrize("share", [0.0, 0.2, 0.4])
def test_good_images_pass_and_far_defects_do_not(n: int, share: float) -> None:
    random = np.random.default_rng(n)
    bad = int(share * n)
    passed, caught = [], []
    for _ in range(50):
        good = np.exp(0.1 * random.standard_normal(n - bad))
        defects = random.uniform(4, 40, bad)
        threshold = robust_threshold(np.concatenate([good, defects]))
        passed.append(np.mean(np.exp(0.1 * random.standard_normal(500)) <= threshold))
        caught.append(np.mean(defects > threshold) if bad else 1.0)
    assert np.mean(passed) > 0.97
    assert np.mean(caught) > 0.97


def test_order_does_not_matter_and_squaring_gives_the_same_verdicts() -> None:
    scores = np.exp(np.random.default_rng(0).standard_normal(30))
    threshold = robust_threshold(scores)
    assert robust_threshold(scores[::-1]) == threshold
    assert robust_threshold(scores**2) == pytest.approx(threshold**2)
    assert robust_threshold(scores * 7) == pytest.approx(threshold * 7)


def test_few_and_degenerate_scores() -> None:
    assert robust_threshold([2.0, 2.0]) > 2.0
    assert robust_threshold([0.0, 0.0]) == 0.0
    assert robust_threshold([0.0, 0.0, 0.0, 5.0]) > 0
    assert 1.1 < robust_threshold([1.0, 1.1, 100.0]) < 100


@settings(max_examples=400, deadline=None)
@given(scores=st.lists(st.floats(0, 1e300) | st.sampled_from([0.0, 1.0, 1000.0, 5e-324, 1.7e308]), min_size=1))
def test_no_scores_give_a_threshold_beyond_reason(scores: list[float]) -> None:
    threshold = robust_threshold(scores)
    positive = [score for score in scores if score > 0]
    if not positive:
        assert threshold == 0.0
        return
    assert math.isfinite(threshold)
    assert min(positive) * (1 - 1e-12) <= threshold <= math.exp(MOST_ABOVE) * max(positive) * (1 + 1e-12)


@pytest.mark.parametrize(
    "scores", [[1] + [1000] * 5, [1, 1] + [1000] * 4, [1, 1, *range(991, 1009)], [0] * 2 + [1000] * 8 + [1e9] * 4]
)
def test_a_few_low_scores_do_not_raise_it(scores: list[float]) -> None:
    assert 1000 < robust_threshold(scores) < 1600


@pytest.mark.parametrize("bad", [[], [1.0, np.nan], [np.inf], [-1.0]])
def test_scores_that_are_none(bad: list[float]) -> None:
    with pytest.raises(ParameterError, match="scores"):
        robust_threshold(bad)


def digests_of(*contents: str) -> NDArray[np.uint8]:
    return np.stack([np.frombuffer(hashlib.sha256(c.encode()).digest(), np.uint8) for c in contents])


def test_sample_is_seeded_and_ascending() -> None:
    assert sample_images(digests_of(*"abcde"), 64, 0).tolist() == [0, 1, 2, 3, 4]
    many = digests_of(*map(str, range(100)))
    drawn = sample_images(many, 10, 0)
    assert len(set(drawn.tolist())) == 10
    assert (np.diff(drawn) > 0).all()
    assert np.array_equal(drawn, sample_images(many, 10, 0))
    assert not np.array_equal(drawn, sample_images(many, 10, 1))


@settings(max_examples=50, deadline=None)
@given(order=st.permutations(range(12)), left_out=st.integers(0, 11), random_state=st.integers(0, 2**32 - 1))
def test_sample_depends_on_the_images_and_not_on_their_numbers(
    order: list[int], left_out: int, random_state: int
) -> None:
    digests = digests_of(*map(str, range(12)))
    drawn = set(sample_images(digests, 5, random_state).tolist())
    assert {order[i] for i in sample_images(digests[order], 5, random_state).tolist()} == drawn
    others = [i for i in range(12) if i != left_out]
    less = {others[i] for i in sample_images(digests[others], 5, random_state).tolist()}
    assert drawn - {left_out} <= less


def test_equal_images_are_drawn_by_number() -> None:
    digests = digests_of("a", "a", "a", "a")
    assert ranked_images(digests, 7).tolist() == [0, 1, 2, 3]
    assert sample_images(digests, 2, 7).tolist() == [0, 1]
