from __future__ import annotations

import numpy as np
import pytest
import reference
from descriptor_sets import shared_patches
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from inreach_fast.kernels import Bank
from inreach_fast.method.scoring import VARIANCE_SHARE, Scorer, anomaly_map, image_score


def scorer(x: NDArray[np.float32], score: str = "nearest", distance: str = "squared_l2") -> Scorer:
    """All of (N, P, D) is nominal; channel p holds patch p of every image."""
    images, patches, dim = x.shape
    bank = Bank(x.reshape(-1, dim), np.repeat(np.arange(images), patches))
    channel = np.tile(np.arange(patches), images)
    return Scorer(bank, lambda: channel, score, distance)


@settings(max_examples=40, deadline=None)
@given(
    grid=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    size=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    sigma=st.sampled_from([0.0, 0.7, 5.0, 13.0]),
    seed=st.integers(0, 1000),
)
def test_map_is_scipys(grid: tuple[int, int], size: tuple[int, int], sigma: float, seed: int) -> None:
    scores = np.random.default_rng(seed).exponential(size=grid).astype(np.float32) ** 4
    got = anomaly_map(scores, size, sigma)
    assert got.shape == size
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, reference.anomaly_map(scores, *size, sigma), rtol=1e-6, atol=1e-30)
    assert image_score(got) == got.max()


def test_map_of_an_infinite_score_has_no_nan() -> None:
    scores = np.ones((4, 4), np.float32)
    scores[0, 0] = np.inf
    got = anomaly_map(scores, (40, 40), 2.0)
    assert not np.isnan(got).any()
    assert got[0, 0] > 1e30
    assert got[-1, -1] == pytest.approx(1)


@pytest.mark.parametrize("distance", ["squared_l2", "l2"])
def test_nearest(distance: str) -> None:
    x = shared_patches(4, 5, 6)
    query = shared_patches(1, 7, 6, seed=9)[0]
    values, index = scorer(x, distance=distance).patch_scores(query)
    wanted, squared = reference.nearest(query, x.reshape(-1, 6))
    assert np.array_equal(index, wanted)
    assert np.array_equal(values, np.sqrt(squared) if distance == "l2" else squared)


@pytest.mark.parametrize("score", ["nearest", "mahalanobis", "patchcore"])
def test_leaving_an_image_out_is_a_model_without_it(score: str) -> None:
    x = shared_patches(5, 6, 8)
    left = scorer(x, score)
    others = np.delete(x, 2, axis=0)
    right = scorer(others, score)
    if score == "mahalanobis":  # the variance floor is the whole model's
        right.__dict__["_mean_variance"] = left._mean_variance
    got, index = left.patch_scores(x[2], leave_out=2)
    want, want_index = right.patch_scores(x[2])
    np.testing.assert_allclose(got, want, rtol=1e-6)
    assert np.array_equal(np.where(index >= 12, index - 6, index), want_index)


@pytest.mark.parametrize("score", ["nearest", "mahalanobis", "patchcore"])
def test_a_patch_without_a_counterpart_is_infinitely_far(score: str) -> None:
    values, index = scorer(shared_patches(1, 3, 4), score).patch_scores(np.zeros((2, 4), np.float32), leave_out=0)
    assert np.isinf(values).all()
    assert (index == -1).all()


@pytest.mark.parametrize("images", [1, 2, 6])
def test_patchcore_is_the_references(images: int) -> None:
    x = shared_patches(images, 4, 6)
    query = shared_patches(1, 7, 6, seed=3)[0]
    got, _ = scorer(x, "patchcore", "l2").patch_scores(query)
    want = reference.patchcore_scores(query, x.reshape(-1, 6), neighbours=9)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_patchcore_of_distances_beyond_exp_is_finite() -> None:
    x = shared_patches(4, 4, 6) * np.float32(1e5)
    got, _ = scorer(x, "patchcore").patch_scores(np.full((3, 6), 3e6, np.float32))
    assert np.isfinite(got).all()


def test_mahalanobis_is_the_references() -> None:
    x = shared_patches(6, 4, 5)
    query = shared_patches(1, 7, 5, seed=3)[0]
    got, index = scorer(x, "mahalanobis", "l2").patch_scores(query)
    mean, variance = x.astype(np.float64).mean(axis=0), x.astype(np.float64).var(axis=0)
    std = np.sqrt(variance + VARIANCE_SHARE * variance.mean())
    want = reference.mahalanobis_scores(query, mean[index % 4], std[index % 4])
    np.testing.assert_allclose(got, want, rtol=1e-6)


def test_mahalanobis_of_identical_members_is_the_plain_distance() -> None:
    x = np.zeros((4, 2, 3), np.float32)
    got, _ = scorer(x, "mahalanobis").patch_scores(np.full((1, 3), 2, np.float32))
    assert got[0] == 12
