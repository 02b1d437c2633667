"""Scores that stop early: the verdict and the bounds are the whole search's, however loose the first bounds are."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from functools import cache
from typing import Any

import loose_bounds
import numpy as np
import pytest
import torch
from descriptor_sets import shared_patches
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from loose_bounds import LooseBounds
from numpy.typing import NDArray

from inreach_fast import InReaCh
from inreach_fast.backbones import Backbone
from inreach_fast.errors import ParameterError
from inreach_fast.kernels import available_backends
from inreach_fast.method.scoring import anomaly_map, back_projection
from inreach_fast.predict import bounded_search as verdict
from inreach_fast.predict.prediction import Prediction

Rows = NDArray[np.float32]

GRID = (12, 14)
PATCHES = GRID[0] * GRID[1]
fuzz = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@cache
def fitted(**parameters: Any) -> InReaCh:
    x = shared_patches(6, PATCHES, 8, seed=1)
    settled: dict[str, Any] = {"image_size": (48, 56), "smoothing_sigma": 3.0, "assoc_depth": 3, **parameters}
    return InReaCh("channels", **settled).fit_descriptors(x, GRID)


@pytest.fixture(scope="module")
def model() -> InReaCh:
    return fitted()


def image(seed: int, defect: float = 0.0) -> Rows:
    """Patches that the model knows; a corner is moved by ``defect``."""
    random = np.random.default_rng(seed)
    rows = shared_patches(6, PATCHES, 8, seed=1)[seed % 6]
    rows = rows + random.uniform(0.1, 1) * random.standard_normal(rows.shape)
    grid = rows.reshape(*GRID, 8)
    grid[2:5, 3:6] += defect
    return rows.astype(np.float32)


def same(a: Prediction, b: Prediction) -> bool:
    arrays = ("anomaly_map", "patch_scores", "nearest", "patch_scores_lower")
    numbers = ("score", "score_lower", "score_upper", "complete")
    return all(np.array_equal(getattr(a, n), getattr(b, n)) for n in arrays) and all(
        getattr(a, n) == getattr(b, n) for n in numbers
    )


# ------------------------------------------------------------------------------------------------- bounds


@fuzz
@given(
    grid=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    sigma=st.sampled_from([0.0, 0.7, 5.0, 13.0]),
    power=st.sampled_from([1, 4, 40, -40]),
    seed=st.integers(0, 1000),
)
def test_the_map_is_monotone_to_the_last_bit(
    grid: tuple[int, int], size: tuple[int, int], sigma: float, power: int, seed: int
) -> None:
    random = np.random.default_rng(seed)
    with np.errstate(over="ignore", under="ignore"):
        low = (random.exponential(size=grid) ** power).astype(np.float32)
    high = low.copy()
    raised = random.random(grid) < 0.5
    high[raised] = np.nextafter(low[raised], np.float32(np.inf))
    high[random.random(grid) < 0.05] = np.inf
    assert (anomaly_map(low, size, sigma) <= anomaly_map(high, size, sigma)).all()


def test_back_projection_is_the_maps_transpose() -> None:
    random = np.random.default_rng(3)
    pixels = random.random((31, 44))
    got = back_projection(pixels, (5, 7), 2.0)
    for i, j in itertools.product(range(5), range(7)):
        one = np.zeros((5, 7), np.float32)
        one[i, j] = 1
        assert got[i, j] == pytest.approx(float((anomaly_map(one, (31, 44), 2.0) * pixels).sum()), rel=1e-5)


@fuzz
@given(
    seed=st.integers(0, 1000),
    defect=st.sampled_from([0.0, 1.0, 5.0]),
    looseness=st.sampled_from([0.0, 0.05, 0.5, 1.0]),
    place=st.sampled_from([-0.5, -1e-6, -0.0, 1e-6, 0.5]),
    distance=st.sampled_from(["squared_l2", "l2"]),
)
def test_the_verdict_is_plain_predicts(
    monkeypatch: pytest.MonkeyPatch, seed: int, defect: float, looseness: float, place: float, distance: str
) -> None:
    model = fitted(distance=distance)
    rows = image(seed, defect)
    plain = model.score_descriptors(rows)
    threshold = plain.score * (1 + place)
    with monkeypatch.context() as patched:
        double = LooseBounds(looseness, seed).install(patched)
        got = model.score_descriptors(rows, threshold=threshold)
    assert got.is_anomalous == (plain.score > threshold)
    assert got.certain
    assert got.score_lower <= plain.score <= got.score_upper
    assert (got.patch_scores_lower <= plain.patch_scores).all()
    assert (plain.patch_scores <= got.patch_scores).all()
    assert got.score == got.anomaly_map.max()
    assert got.complete == (sum(double.searched) == PATCHES - double.first)
    if got.complete:
        assert same(got, plain)


@pytest.mark.parametrize("distance", ["squared_l2", "l2"])
def test_a_threshold_that_is_the_score_itself(monkeypatch: pytest.MonkeyPatch, distance: str) -> None:
    model, rows = fitted(distance=distance), image(3, defect=4.0)
    plain = model.score_descriptors(rows)

    class Touching(LooseBounds):
        """Lower ends that are the answers, so that the lower score is the score; upper ends that are loose."""

        def grid_bounds(self, *arguments: Any, **options: Any) -> Any:
            found = super().grid_bounds(*arguments, **options)
            return replace(found, sq_lower=loose_bounds._NEAREST(*arguments[::2]).sq_distance)

    Touching(1.0, first=1).install(monkeypatch)
    got = model.score_descriptors(rows, threshold=plain.score)
    assert got.certain
    assert not got.is_anomalous
    got = model.score_descriptors(rows, threshold=float(np.nextafter(np.float32(plain.score), np.float32(0))))
    assert got.certain
    assert got.is_anomalous
    assert got.score_upper > plain.score  # known without the search


@pytest.mark.parametrize("magnitude", [1e-30, 1e18, 1e30])
def test_distances_at_the_ends_of_float32(magnitude: float) -> None:
    x = (shared_patches(6, PATCHES, 8, seed=1) * magnitude).astype(np.float32)
    model = InReaCh("channels", image_size=(48, 56), smoothing_sigma=3.0, assoc_depth=3).fit_descriptors(x, GRID)
    rows = (image(2, defect=3.0) * magnitude).astype(np.float32)
    plain = model.score_descriptors(rows)
    for limits in ({"threshold": plain.score}, {"threshold": plain.score / 2}, {"budget_ms": 1e-6}, {"budget_ms": 6e4}):
        got = model.score_descriptors(rows, **limits)
        assert got.score_lower <= plain.score <= got.score_upper
        assert (got.patch_scores_lower <= plain.patch_scores).all()
        assert (plain.patch_scores <= got.patch_scores).all()
        if "threshold" in limits:
            assert got.is_anomalous == (plain.score > limits["threshold"])


def test_a_clear_verdict_needs_no_search_and_a_close_one_few_patches(
    model: InReaCh, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = image(4, defect=6.0)
    plain = model.score_descriptors(rows)
    monkeypatch.setattr(verdict, "FIRST_ROUND", 16)
    tight = LooseBounds(0.01).install(monkeypatch)
    got = model.score_descriptors(rows, threshold=plain.score / 2)
    assert got.is_anomalous
    assert not got.complete
    assert tight.searched == []
    loose = LooseBounds(0.9).install(monkeypatch)
    got = model.score_descriptors(rows, threshold=plain.score * 0.9)
    assert got.is_anomalous
    # The defect is 9 patches of 168, and what is far from it does not matter.
    assert 0 < sum(loose.searched) <= 64


def test_a_verdict_is_the_same_every_time(model: InReaCh, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = image(2, defect=3.0)
    threshold = model.score_descriptors(rows).score * 0.95
    answers = []
    for _ in range(2):
        LooseBounds(0.7, seed=5).install(monkeypatch)
        answers.append(model.score_descriptors(rows, threshold=threshold))
    assert same(*answers)


# ------------------------------------------------------------------------------------------------- budget


def set_speed(model: InReaCh, patch: float = 0.0) -> None:
    speed = model._ready().speed
    speed.patch, speed.maps = patch, 0.0


def with_clock(monkeypatch: pytest.MonkeyPatch, double: LooseBounds) -> LooseBounds:
    double.install(monkeypatch)
    monkeypatch.setattr(verdict.time, "perf_counter", lambda: double.now)
    return double


@fuzz
@given(seed=st.integers(0, 1000), looseness=st.sampled_from([0.2, 1.0]), budget=st.floats(0.01, 3.0))
def test_a_budget_is_kept_to_within_a_small_round_and_its_bounds_hold(
    model: InReaCh, monkeypatch: pytest.MonkeyPatch, seed: int, looseness: float, budget: float
) -> None:
    rows = image(seed, defect=2.0)
    plain = model.score_descriptors(rows)
    monkeypatch.setattr(verdict, "FIRST_ROUND", 16)
    monkeypatch.setattr(verdict, "LEAST_ROUND", 8)
    set_speed(model)
    with monkeypatch.context() as patched:
        double = with_clock(patched, LooseBounds(looseness, seed))
        got = model.score_descriptors(rows, budget_ms=budget * 1e3)
    assert double.now <= max(double.first_seconds, budget) + 8 * double.patch
    assert got.score_lower <= plain.score <= got.score_upper
    assert got.score == got.score_upper
    assert got.certain == (got.score_lower > model.threshold_ or got.score_upper <= model.threshold_)
    if got.certain:
        assert got.is_anomalous == plain.is_anomalous
    assert got.complete == (sum(double.searched) == PATCHES - double.first)
    if budget < double.first_seconds:
        assert double.searched == []
    if got.complete:
        assert same(got, plain)


def test_time_enough_gives_the_plain_answer(model: InReaCh, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = image(3)
    plain = model.score_descriptors(rows)
    double = with_clock(monkeypatch, LooseBounds(1.0))
    got = model.score_descriptors(rows, budget_ms=1e6)
    assert sum(double.searched) == PATCHES - double.first
    assert same(got, plain)
    assert got.certain


def test_more_time_never_widens_the_bounds(model: InReaCh, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = image(5, defect=3.0)
    monkeypatch.setattr(verdict, "FIRST_ROUND", 16)
    widths = []
    for budget in (50, 900, 1300, 1600, 60_000):
        set_speed(model, patch=0.01)
        with_clock(monkeypatch, LooseBounds(0.9, seed=1))
        got = model.score_descriptors(rows, budget_ms=budget)
        widths.append(got.score_upper - got.score_lower)
    assert widths == sorted(widths, reverse=True)
    assert widths[0] > widths[2] > widths[-1] == 0


def test_threshold_and_budget_together(model: InReaCh, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = image(7, defect=5.0)
    plain = model.score_descriptors(rows)
    monkeypatch.setattr(verdict, "FIRST_ROUND", 16)
    with_clock(monkeypatch, LooseBounds(1.0, seed=3))
    short = model.score_descriptors(rows, threshold=plain.score, budget_ms=250)
    assert not short.certain
    double = with_clock(monkeypatch, LooseBounds(1.0, seed=3))
    enough = model.score_descriptors(rows, threshold=plain.score * 0.8, budget_ms=60_000)
    assert enough.certain
    assert enough.is_anomalous
    assert not enough.complete
    assert sum(double.searched) < PATCHES


def test_a_budget_is_each_images_own(model: InReaCh, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = np.stack([image(i) for i in range(4)])
    with_clock(monkeypatch, LooseBounds(1.0))
    got = model.score_descriptors(batch, budget_ms=60_000)
    assert got.complete.tolist() == [True] * 4
    with_clock(monkeypatch, LooseBounds(1.0))
    got = model.score_descriptors(batch, budget_ms=2500)  # one image needs 1.7 seconds of that clock
    assert got.complete.tolist() == [True] * 4


# ------------------------------------------------------------------------------------------------- images


def pictures(count: int, seed: int = 0) -> list[NDArray[np.uint8]]:
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:32, :32]
    pattern = 128 + 50 * np.sin(x / 5) + 50 * np.cos(y / 7) + y
    noisy = [pattern[:, :, None] + random.normal(0, random.uniform(2, 20), (32, 32, 3)) for _ in range(count)]
    return [np.clip(one, 0, 255).astype(np.uint8) for one in noisy]


@pytest.fixture(scope="module")
def of_images() -> InReaCh:
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 16, 4, stride=4), torch.nn.ReLU())
    backbone = Backbone.from_module(module, levels=["1"], name="tiny")
    return InReaCh("channels", backbone=backbone, image_size=32, dim=16, assoc_depth=2, smoothing_sigma=1.0).fit(
        pictures(10)
    )


def test_images_have_the_limits_of_descriptors(of_images: InReaCh, monkeypatch: pytest.MonkeyPatch) -> None:
    images = pictures(5, seed=1)
    plain = of_images.predict(images)
    threshold = float(np.median(plain.score))
    LooseBounds(0.8).install(monkeypatch)
    got = of_images.predict(images, threshold=threshold)
    assert np.array_equal(got.is_anomalous, plain.score > threshold)
    assert got.certain.all()
    assert (got.score_lower <= plain.score).all()
    assert (plain.score <= got.score_upper).all()
    assert got[2].is_anomalous == of_images.predict(images[2], threshold=threshold).is_anomalous
    assert same(of_images.predict(images[0], budget_ms=3_600_000), plain[0])
    with pytest.raises(ParameterError, match="budget_ms"):
        of_images.predict(images[0], budget_ms=0)


def test_the_budget_of_an_image_starts_with_its_backbone(of_images: InReaCh, monkeypatch: pytest.MonkeyPatch) -> None:
    images = pictures(3, seed=2)
    double = with_clock(monkeypatch, LooseBounds(1.0))
    describe, batches = of_images._describer, []

    def slow(inputs: Any, precision: str) -> Any:
        batches.append(len(inputs))
        double.now += 5.0 * len(inputs)
        return describe(inputs, precision)

    monkeypatch.setattr(of_images, "_describer", slow)
    # Backbone 5 s, first bounds and search of all 64 patches 0.64 s. Images take turns, so that none waits for another.
    assert of_images.predict(images, budget_ms=6500).complete.tolist() == [True] * 3
    assert batches == [1] * 3
    double.searched.clear()
    assert not of_images.predict(images, budget_ms=5050).complete.any()
    assert double.searched == []


# ---------------------------------------------------------------------------------------- what comes back


def test_plain_predictions_are_proven(model: InReaCh) -> None:
    got = model.score_descriptors(image(1))
    assert got.score_lower == got.score == got.score_upper
    assert got.complete
    assert got.certain
    assert np.array_equal(got.patch_scores_lower, got.patch_scores)
    if got.counts is not None:
        assert got.counts.pairs == PATCHES * len(model.nominal_)


def test_a_batch_is_its_images(model: InReaCh, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = np.stack([image(i, defect=2.0 * i) for i in range(3)])
    threshold = float(np.median(model.score_descriptors(batch).score))
    LooseBounds(0.8, seed=2).install(monkeypatch)
    stacked = model.score_descriptors(batch, threshold=threshold)
    LooseBounds(0.8, seed=2).install(monkeypatch)
    for i in range(3):
        one, alone = stacked[i], model.score_descriptors(batch[i], threshold=threshold)
        assert one.score_lower == np.float32(alone.score_lower)
        assert (one.certain, one.complete, one.is_anomalous) == (alone.certain, alone.complete, alone.is_anomalous)
        assert np.array_equal(one.patch_scores_lower, alone.patch_scores_lower)
        assert one.counts == alone.counts


@pytest.mark.parametrize("backend", available_backends())
def test_every_backend_gives_the_verdict(backend: str) -> None:
    model = fitted(backend=backend)
    for seed in range(3):
        rows = image(seed, defect=float(seed))
        plain = model.score_descriptors(rows)
        for threshold in (plain.score, plain.score * 0.7, plain.score * 1.3):
            got = model.score_descriptors(rows, threshold=threshold)
            assert got.is_anomalous == (plain.score > threshold)
            assert got.score_lower <= plain.score <= got.score_upper
        assert same(model.score_descriptors(rows, budget_ms=3_600_000), plain)


@pytest.mark.parametrize("score", ["mahalanobis", "patchcore"])
def test_other_scores_are_searched_whole_for_a_threshold_and_take_no_budget(score: str) -> None:
    model = fitted(score=score)
    rows = image(1, defect=2.0)
    plain = model.score_descriptors(rows)
    got = model.score_descriptors(rows, threshold=plain.score * 2)
    assert same(got, plain)
    assert not got.is_anomalous
    assert got.certain
    with pytest.raises(ParameterError, match=f'budget_ms: score="{score}"'):
        model.score_descriptors(rows, budget_ms=10)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, "1", True, [1.0], None])
@pytest.mark.parametrize("name", ["threshold", "budget_ms"])
def test_limits_that_are_no_numbers(model: InReaCh, name: str, value: Any) -> None:
    if value is None:
        assert model.score_descriptors(image(0), **{name: value}).complete
        return
    with pytest.raises(ParameterError, match=name):
        model.score_descriptors(image(0), **{name: value})


@pytest.mark.parametrize("value", [0, -1, -0.0])
def test_a_budget_of_nothing(model: InReaCh, value: float) -> None:
    with pytest.raises(ParameterError, match="budget_ms: expected more than 0"):
        model.score_descriptors(image(0), budget_ms=value)


def test_prepare_comes_before_the_first_image(model: InReaCh) -> None:
    assert model.prepare() is model
