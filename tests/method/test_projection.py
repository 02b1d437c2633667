"""Principal components of a sample of patches."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from sklearn.decomposition import PCA

from inreach_fast.errors import ParameterError
from inreach_fast.method.projection import Projection


def test_components_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    rows = (rng.normal(size=(300, 12)) * 2.0 ** -np.arange(12) + rng.normal(size=12)).astype(np.float32)
    found, wanted = Projection.fit(rows, 5), PCA(5).fit(rows.astype(np.float64))
    np.testing.assert_allclose(found.mean, wanted.mean_, rtol=1e-5)
    for ours, theirs in zip(found.matrix.T, wanted.components_, strict=True):
        np.testing.assert_allclose(ours, theirs * np.sign(theirs @ ours), atol=1e-5)
        assert ours[np.abs(ours).argmax()] > 0
    np.testing.assert_allclose(found(rows), (rows - found.mean) @ found.matrix, atol=1e-4)
    assert (found.dim, found(rows).dtype) == (5, np.float32)


def test_fewer_directions_than_components_are_said(caplog: pytest.LogCaptureFixture) -> None:
    rng = np.random.default_rng(1)
    rows = (rng.normal(size=(50, 3)) @ rng.normal(size=(3, 20))).astype(np.float32)
    with caplog.at_level(logging.WARNING, logger="inreach_fast"):
        assert Projection.fit(rows, 10).dim <= 10
    flat = np.concatenate([rng.normal(size=(50, 3)), np.zeros((50, 17))], axis=1).astype(np.float32)
    with caplog.at_level(logging.WARNING, logger="inreach_fast"):
        assert Projection.fit(flat, 10).dim == 3
    assert "vary in 3 directions only" in caplog.text


def test_equal_patches_are_refused() -> None:
    with pytest.raises(ParameterError, match="pca_dim: all patches are the same"):
        Projection.fit(np.ones((30, 20), np.float32), 10)
