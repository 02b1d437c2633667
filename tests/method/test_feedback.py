"""Scores under feedback: against one bank of both, a reference of the rule, and what the rule promises."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from inreach_fast import kernels
from inreach_fast.kernels import Bank, available_backends
from inreach_fast.method.feedback import ACCEPT, REJECT, Feedback, FeedbackBanks, chosen_patches, peak_of
from inreach_fast.method.scoring import MapFrame, anomaly_map

Rows = NDArray[np.float32]
THRESHOLD = 20.0


def rows(count: int, seed: int, scale: float = 1.0) -> Rows:
    return (np.random.default_rng(seed).normal(0, scale, (count, 6))).astype(np.float32)


def feedback(number: int, kind: str, of: Rows, peak: float = 0.5) -> Feedback:
    return Feedback(
        number=number, kind=kind, image="x", size=(1, 1), region=None, patches=np.arange(len(of)), rows=of, peak=peak
    )


def squared(values: Rows) -> Rows:
    return values


def scored(entries: list[Feedback], queries: Rows, nominal: Bank, backend: str = "auto") -> tuple[Rows, list[int]]:
    banks = FeedbackBanks.of(entries, THRESHOLD)
    assert banks is not None
    found = kernels.nearest(queries, nominal, backend=backend)
    scores, by = banks.of_image(queries, backend).scores(found.sq_distance, squared)
    return scores, by.tolist()


@pytest.mark.parametrize("backend", available_backends())
def test_accepted_patches_are_nominal_ones_of_floor_0(backend: str) -> None:
    bank, floor = rows(80, 0), np.abs(rows(80, 1)[:, 0]) * 5
    accepted, queries = rows(9, 2), rows(50, 3)
    both = kernels.nearest(
        queries, np.concatenate([bank, accepted]), bank_floor=np.concatenate([floor, np.zeros(9, np.float32)])
    )
    entries = [feedback(1, ACCEPT, accepted[:4]), feedback(2, ACCEPT, accepted[4:])]
    scores, by = scored(entries, queries, Bank(bank, floor=floor), backend)
    np.testing.assert_array_equal(scores, both.sq_distance)
    assert by == [0 if i < 80 else 1 if i < 84 else 2 for i in both.index.tolist()]
    assert {0, 1, 2} <= set(by)


@pytest.mark.parametrize("backend", available_backends())
def test_rejected_patches_raise_scores_by_the_rule(backend: str) -> None:
    bank, queries = rows(60, 0), rows(200, 3)
    first, second = rows(5, 4), rows(3, 5, 0.5)
    got, by = scored([feedback(1, REJECT, first, 0.5), feedback(2, REJECT, second, 1.0)], queries, Bank(bank), backend)

    def distance(to: Rows) -> NDArray[np.float64]:
        return np.square(queries[:, None].astype(np.float64) - to).sum(axis=2).min(axis=1)

    n, want, due = distance(bank), distance(bank), np.zeros(200, int)
    for number, part, peak in ((1, first, 0.5), (2, second, 1.0)):
        level = 1.01 * THRESHOLD / peak * np.clip(2 - 2 * distance(part) / n, 0, 1)
        due = np.where(level > want, number, due)
        want = np.maximum(want, level)
    np.testing.assert_allclose(got, want, rtol=1e-5)
    assert by == due.tolist()
    nearer = distance(np.concatenate([first, second])) >= n
    np.testing.assert_array_equal(got[nearer], kernels.nearest(queries, bank).sq_distance[nearer])
    assert 0 < nearer.sum() < 200


def test_scores_rise_with_the_nominal_value() -> None:
    """Bounds of the nominal value are bounds of the score."""
    banks = FeedbackBanks.of([feedback(1, REJECT, rows(5, 1)), feedback(2, ACCEPT, rows(5, 2))], THRESHOLD)
    assert banks is not None
    one = np.repeat(rows(1, 7), 400, axis=0)
    values = np.sort(np.abs(rows(400, 8)[:, 0]) * 30)
    values[:2] = 0
    scores, _ = banks.of_image(one, "auto").scores(values, squared)
    assert (np.diff(scores) >= 0).all()
    assert scores[-1] > scores[0]


def test_a_rejected_patch_gets_the_whole_level_whatever_its_nominal_value() -> None:
    rejected = rows(3, 1)
    for bank in (rejected, rows(20, 5)):
        scores, by = scored([feedback(1, REJECT, rejected, 0.25)], rejected, Bank(bank))
        np.testing.assert_allclose(scores, np.float32(1.01 * THRESHOLD / 0.25))
        assert by == [1, 1, 1]


def test_of_contradicting_feedback_the_later_one_holds() -> None:
    some, nominal = rows(4, 1), Bank(rows(20, 2))
    accept, reject = feedback(1, ACCEPT, some), feedback(2, REJECT, some[:2])
    scores, by = scored([accept, reject], some, nominal)
    assert by == [2, 2, 1, 1]
    assert (scores[:2] > THRESHOLD).all()
    assert (scores[2:] == 0).all()
    scores, by = scored([reject, accept], some, nominal)
    assert (scores == 0).all()
    assert by == [1, 1, 1, 1]


def test_nominal_patches_that_equal_rejected_ones_are_excluded() -> None:
    bank = rows(30, 1)
    bank[17] = bank[4]
    banks = FeedbackBanks.of([feedback(1, REJECT, bank[[4, 9]]), feedback(2, REJECT, rows(2, 8))], THRESHOLD)
    assert banks is not None
    assert banks.excluded(Bank(bank, floor=np.ones(30, np.float32)), "auto").tolist() == [4, 9, 17]


def test_the_patches_of_a_rejected_region_that_stand_out_count() -> None:
    inside = np.array([True, True, True, True, False])
    values = np.array([1.0, 5.0, 10.0, 4.9, 100.0], np.float32)
    assert chosen_patches(REJECT, inside, values).tolist() == [1, 2]
    assert chosen_patches(ACCEPT, inside, values).tolist() == [0, 1, 2, 3]


def test_the_peak_is_that_of_the_map_of_the_patches_alone() -> None:
    frame = MapFrame((4, 5), (32, 40), 3.0)
    alone = np.zeros((4, 5), np.float32)
    alone[1, 2] = alone[1, 3] = 1
    assert peak_of(np.array([7, 8]), 20, frame) == anomaly_map(alone, (32, 40), 3.0).max()
