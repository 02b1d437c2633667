"""Figures of the audit: the defective training images found by their own scores, and their share estimated."""

from __future__ import annotations

import numpy as np
import pytest

from inreach_fast.evaluation import audit_figures
from inreach_fast.method.evidence import anomalous_share


def test_figures_of_known_scores() -> None:
    labels = np.array([False, True, False, True, False, False, True, False])
    scores = np.array([1.0, 9.0, 2.0, 8.0, 1.5, 8.5, 1.2, 1.1], np.float32)
    found = audit_figures(labels, scores)
    # Pairs of a defective and a good image, in the right order: 5 + 4 + 2 of 15.
    assert found.auroc == pytest.approx(11 / 15)
    assert found.precision == pytest.approx(2 / 3)
    assert found.share == pytest.approx(3 / 8)
    share = anomalous_share(scores)
    assert (found.estimate, found.low, found.high) == (share.estimate, share.low, share.high)
    assert found.error == pytest.approx(share.estimate - 3 / 8)


def test_an_infinite_score_is_the_highest() -> None:
    found = audit_figures(np.array([True, False, False]), np.array([np.inf, 1.0, 2.0], np.float32))
    assert (found.auroc, found.precision) == (1.0, 1.0)


@pytest.mark.parametrize("defective", [False, True])
def test_a_ranking_needs_both_kinds(defective: bool) -> None:
    found = audit_figures(np.full(4, defective), np.arange(1.0, 5.0, dtype=np.float32))
    assert found.auroc is None
    assert found.precision == (1.0 if defective else None)
    assert found.error == found.estimate - defective
    assert audit_figures(np.full(2, defective), np.full(2, np.inf, np.float32)).estimate is None
