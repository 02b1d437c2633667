from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from inreach_fast.errors import ParameterError
from inreach_fast.method.evidence import (
    LEAST_DEVIATION,
    PRIOR_GAP,
    PRIOR_RATIO,
    anomalous_share,
    evidence_threshold,
    expected_false_alarms,
    fit_mixture,
)

Scores = NDArray[np.float64]
SCORES = st.lists(st.one_of(st.just(0.0), st.floats(1e-12, 1e12)), min_size=1, max_size=30)


def folder(n: int, share: float, gap: float, seed: int, spread: float = 0.2) -> tuple[Scores, Scores]:
    """Scores of good and of anomalous images: logarithms normal, ``gap`` deviations apart, the anomalous ones wider."""
    random = np.random.default_rng(seed)
    bad = round(share * n)
    good = random.standard_normal(n - bad)
    return np.exp(spread * good), np.exp(spread * (gap + 1.5 * random.standard_normal(bad)))


@pytest.mark.parametrize("share", [0.0, 0.1, 0.2, 0.4])
def test_separate_groups_are_found(share: float) -> None:
    good, bad = folder(100, share, 12.0, seed=1)
    scores = np.concatenate([bad, good])
    mixture = fit_mixture(scores)
    assert good.max() < bad.min() if share else True
    assert (mixture.good[: len(bad)] < 0.5).all()
    # Nothing tells the greatest of 100 good scores from a weak anomaly.
    assert np.mean(mixture.good[len(bad) :] > 0.5) >= 0.97
    assert mixture.centre == pytest.approx(np.log(good).mean(), abs=0.03)
    assert mixture.deviation == pytest.approx(np.log(good).std(), rel=0.15)
    threshold = evidence_threshold(scores)
    assert np.mean(good > threshold) <= (0.1 if share == 0 else 0.05)
    assert (bad > threshold).all()
    found = anomalous_share(scores)
    assert found.low <= share <= found.high
    assert found.estimate == pytest.approx(share, abs=0.06)
    assert found.high - found.low <= 0.2


def test_an_even_folder_is_judged_by_the_prior() -> None:
    """Normal quantiles and nothing else: hardly an anomalous image, and a threshold a little above m + s."""
    x = np.array([NormalDist().inv_cdf((i + 0.5) / 200) for i in range(200)])
    mixture = fit_mixture(np.exp(0.3 * x))
    assert mixture.share < 0.03
    assert mixture.deviation == pytest.approx(0.3, rel=0.05)
    assert 0.05 < np.mean(np.exp(0.3 * x) > evidence_threshold(np.exp(0.3 * x))) < 0.15


def test_balanced_threshold_is_where_both_groups_are_equally_probable() -> None:
    good, bad = folder(100, 0.3, 3.0, seed=2)
    mixture = fit_mixture(np.concatenate([good, bad]))
    at = math.log(mixture.balanced_threshold())
    one = NormalDist(mixture.centre, mixture.deviation).pdf(at)
    other = NormalDist(mixture.anomalous_centre, mixture.anomalous_deviation).pdf(at)
    assert other == pytest.approx(one)
    assert mixture.centre < at < mixture.anomalous_centre
    # The prior's own value, u^2 (R^2 - 1) + 2 u G = G^2 + 2 R^2 log R.
    u = (-PRIOR_GAP + math.sqrt(PRIOR_GAP**2 + 1.25 * (9 + 4.5 * math.log(1.5)))) / 1.25
    assert PRIOR_RATIO == 1.5
    assert u == pytest.approx(1.40, abs=0.01)


@pytest.mark.parametrize("rate", [0.02, 0.05, 0.1])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.4])
def test_false_alarm_rate_is_kept(rate: float, share: float) -> None:
    rates, caught = [], []
    for seed in range(12):
        good, bad = folder(100, share, 6.0, seed)
        threshold = evidence_threshold(np.concatenate([good, bad]), false_alarm_rate=rate)
        new, _ = folder(400, 0.0, 0.0, seed + 1000)
        rates.append(np.mean(new > threshold))
        caught.append(np.mean(bad > threshold) if share else 1.0)
    assert 0.4 * rate <= np.mean(rates) <= 1.4 * rate + 0.01
    assert np.mean(caught) > 0.85


def test_rate_of_a_folder_without_anomalies_is_the_conformal_quantile() -> None:
    scores = np.exp(0.2 * np.random.default_rng(5).standard_normal(199))
    threshold = evidence_threshold(scores, false_alarm_rate=0.1)
    # The plain conformal quantile is the 180th of 199; the highest scores count as good in part only.
    assert np.sort(scores)[155] <= threshold <= np.sort(scores)[179]
    assert expected_false_alarms(scores, np.sort(scores)[150]) > 0.1
    assert expected_false_alarms(scores, threshold) <= 0.1 + 1e-9


def test_few_images_take_the_models_quantile() -> None:
    scores = np.exp(0.2 * np.random.default_rng(6).standard_normal(20))
    mixture = fit_mixture(scores)
    assert evidence_threshold(scores, false_alarm_rate=0.02) == pytest.approx(mixture.quantile(0.98))
    assert expected_false_alarms(scores, 1e9) == pytest.approx(1 / (1 + mixture.good.sum()))


@settings(max_examples=50, deadline=None)
@given(scores=SCORES, rate=st.sampled_from([None, 0.001, 0.02, 0.5, 0.99]))
def test_threshold_is_bounded_for_any_scores(scores: list[float], rate: float | None) -> None:
    threshold = evidence_threshold(scores, false_alarm_rate=rate)
    positive = [score for score in scores if score > 0]
    if not positive:
        assert threshold == 0
        return
    assert threshold > 0
    low, high = math.log(min(positive)), math.log(max(positive))
    spread = max(high - low, LEAST_DEVIATION)
    assert low - 3.1 * spread <= math.log(threshold) <= high + 3.1 * spread
    share = anomalous_share(scores)
    assert 0 <= share.low <= share.estimate <= share.high <= 1
    assert share.estimate <= 0.75
    assert 0 < expected_false_alarms(scores, threshold) <= 1


@settings(max_examples=50, deadline=None)
@given(scores=SCORES.filter(any))
def test_a_higher_score_is_never_the_more_likely_to_be_good(scores: list[float]) -> None:
    good = fit_mixture(scores).good
    assert (np.diff(good[np.argsort(scores)]) <= 1e-12).all()
    assert (good >= 0).all()
    assert (good <= 1).all()


def test_order_and_unit_do_not_matter() -> None:
    good, bad = folder(60, 0.2, 4.0, seed=3)
    scores = np.concatenate([good, bad])
    for rate in (None, 0.05):
        threshold = evidence_threshold(scores, false_alarm_rate=rate)
        assert evidence_threshold(scores[::-1], false_alarm_rate=rate) == pytest.approx(threshold)
        assert evidence_threshold(scores * 7, false_alarm_rate=rate) == pytest.approx(threshold * 7)
        assert evidence_threshold(scores**2, false_alarm_rate=rate) == pytest.approx(threshold**2, rel=1e-4)


def test_a_lower_rate_gives_a_higher_threshold() -> None:
    good, bad = folder(200, 0.1, 4.0, seed=4)
    scores = np.concatenate([good, bad])
    found = [evidence_threshold(scores, false_alarm_rate=rate) for rate in (0.3, 0.1, 0.05, 0.02)]
    assert found == sorted(found)


def test_few_and_degenerate_scores() -> None:
    assert evidence_threshold([0.0, 0.0]) == 0.0
    assert anomalous_share([0.0]).high == 0.0
    assert expected_false_alarms([0.0, 0.0], 0.0) == pytest.approx(1 / 3)
    assert 2.0 < evidence_threshold([2.0, 2.0]) < 2.0 * math.exp(4 * LEAST_DEVIATION)
    assert 2.0 < evidence_threshold([2.0] * 50, false_alarm_rate=0.001) < 2.0 * math.exp(4 * LEAST_DEVIATION)
    assert evidence_threshold([3.0]) > 3.0
    assert 1.1 < evidence_threshold([1.0, 1.1, 1.05, 0.95, 100.0]) < 100


@pytest.mark.parametrize("bad", [[], [1.0, np.nan], [np.inf], [-1.0]])
def test_scores_that_are_none(bad: list[float]) -> None:
    for function in (evidence_threshold, fit_mixture, anomalous_share):
        with pytest.raises(ParameterError, match="scores"):
            function(bad)
    with pytest.raises(ParameterError, match="copies"):
        fit_mixture([0.0, 0.0])


@pytest.mark.parametrize("rate", [0, 1, -0.1, 2, float("nan"), "0.1", True])
def test_rates_that_are_none(rate: object) -> None:
    with pytest.raises(ParameterError, match="false_alarm_rate"):
        evidence_threshold([1.0, 2.0], false_alarm_rate=rate)  # type: ignore[arg-type]
    with pytest.raises(ParameterError, match="level"):
        anomalous_share([1.0, 2.0], level=rate)  # type: ignore[arg-type]
