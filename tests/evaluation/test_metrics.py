"""Metrics: worked cases by hand, then a naive O(n^2) reference on random data, then the typed errors."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inreach_fast.errors import DataError, MixedSizesError, NonFiniteError, ParameterError
from inreach_fast.evaluation import metrics


def naive_auroc(labels, scores):
    """Share of (defect, good) pairs in the right order, ties half."""
    pairs = [(p > n) + 0.5 * (p == n) for p in scores[labels] for n in scores[~labels]]
    return sum(pairs) / len(pairs)


def naive_average_precision(labels, scores):
    total, recall_before = 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        taken = scores >= threshold
        recall = labels[taken].sum() / labels.sum()
        total += (recall - recall_before) * labels[taken].mean()
        recall_before = recall
    return total


def naive_best_f1(labels, scores):
    best = 0.0
    for threshold in set(scores):
        taken = scores >= threshold
        best = max(best, 2 * (taken & labels).sum() / (taken.sum() + labels.sum()))
    return best


def flood_regions(mask):
    """8-connected components as lists of pixels, by flood fill."""
    todo, regions = {tuple(p) for p in np.argwhere(mask)}, []
    while todo:
        stack, region = [todo.pop()], []
        while stack:
            r, c = stack.pop()
            region.append((r, c))
            for near in [(r + i, c + j) for i in (-1, 0, 1) for j in (-1, 0, 1)]:
                if near in todo:
                    todo.remove(near)
                    stack.append(near)
        regions.append(region)
    return regions


def naive_aupro(masks, maps, limit):
    regions = [(i, region) for i, mask in enumerate(masks) for region in flood_regions(mask)]
    normal = np.concatenate([m[~k] for k, m in zip(masks, maps, strict=True)])
    points = [(0.0, 0.0)]
    for threshold in sorted({v for m in maps for v in m.ravel()}, reverse=True):
        overlap = [np.mean([maps[i][p] >= threshold for p in region]) for i, region in regions]
        points.append((float(np.mean(normal >= threshold)), float(np.mean(overlap))))
    area = 0.0
    for (x0, y0), (x1, y1) in pairwise(points):
        if x1 > limit:
            if x0 < limit:
                at = y0 + (y1 - y0) * (limit - x0) / (x1 - x0)
                area += (limit - x0) * (y0 + at) / 2
            break
        area += (x1 - x0) * (y0 + y1) / 2
    return area / limit


@st.composite
def labelled_scores(draw):
    n = draw(st.integers(2, 30))
    labels = np.array(draw(st.lists(st.booleans(), min_size=n, max_size=n)))
    labels[0], labels[1] = True, False
    # Few distinct values, so that ties are the rule.
    scores = np.array(draw(st.lists(st.integers(0, 8), min_size=n, max_size=n)), dtype=np.float32) / 4
    return labels, scores


@st.composite
def maps_and_masks(draw):
    seed, n = draw(st.integers(0, 2**32 - 1)), draw(st.integers(1, 3))
    rng = np.random.default_rng(seed)
    masks = [rng.random((6, 7)) < draw(st.sampled_from([0.1, 0.3, 0.6])) for _ in range(n)]
    masks[0][0, 0], masks[0][5, 6] = True, False
    levels = draw(st.sampled_from([2, 5, 1000]))
    maps = [(rng.integers(0, levels, (6, 7)) + 2 * mask).astype(np.float32) for mask in masks]
    return masks, maps


def test_ranking_figures_by_hand():
    labels = [0, 1, 0, 1]
    scores = [0.1, 0.2, 0.3, 0.4]
    # Pairs (defect, good): (0.2,0.1) right, (0.2,0.3) wrong, (0.4,0.1) right, (0.4,0.3) right.
    assert metrics.auroc(labels, scores) == pytest.approx(3 / 4)
    # At 0.4: precision 1, recall 1/2; at 0.2: precision 2/3, recall 1.
    assert metrics.average_precision(labels, scores) == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    # F1: 0.4 -> 2/3; 0.3 -> 1/2; 0.2 -> 2 * 2 / (3 + 2); 0.1 -> 2/3.
    best = metrics.best_f1(labels, scores)
    assert best.value == pytest.approx(0.8)
    assert best.threshold == pytest.approx(0.2)


def test_all_scores_equal_says_nothing():
    assert metrics.auroc([0, 1, 1], [2.0, 2.0, 2.0]) == 0.5
    assert metrics.average_precision([0, 1, 1], [2.0, 2.0, 2.0]) == pytest.approx(2 / 3)


@given(labelled_scores())
def test_ranking_figures_against_naive(case):
    labels, scores = case
    assert metrics.auroc(labels, scores) == pytest.approx(naive_auroc(labels, scores), abs=1e-12)
    assert metrics.average_precision(labels, scores) == pytest.approx(naive_average_precision(labels, scores))
    best = metrics.best_f1(labels, scores)
    assert best.value == pytest.approx(naive_best_f1(labels, scores))
    taken = scores >= best.threshold
    assert 2 * (taken & labels).sum() / (taken.sum() + labels.sum()) == pytest.approx(best.value)


def test_aupro_by_hand():
    # Two regions, of 1 and of 3 pixels; 6 normal pixels.
    mask = np.array([[1, 0, 0, 0, 0], [0, 0, 1, 1, 1]])
    score = np.array([[9, 8, 1, 1, 1], [1, 1, 7, 7, 0.5]], dtype=np.float32)
    # Thresholds descending, (false positives / 6, mean overlap): 9 -> (0, 1/2); 8 -> (1/6, 1/2);
    # 7 -> (1/6, 1/2 + 1/3); 1 -> (1, 5/6); 0.5 -> (1, 1).
    limit = 0.3
    area = 1 / 6 * 1 / 2 + (limit - 1 / 6) * 5 / 6
    assert metrics.aupro([mask], [score]) == pytest.approx(area / limit)
    # Without a limit: the whole curve.
    assert metrics.aupro([mask], [score], limit=1.0) == pytest.approx(1 / 12 + 5 / 6 * 5 / 6)


def test_aupro_of_perfect_and_of_constant_maps():
    mask = np.zeros((8, 8), dtype=bool)
    mask[2:4, 2:4] = True
    assert metrics.aupro([mask], [mask.astype(np.float32)]) == pytest.approx(1.0)
    # One threshold takes all: the curve is the diagonal from (0,0) to (1,1), cut at 0.3.
    assert metrics.aupro([mask], [np.ones((8, 8), np.float32)]) == pytest.approx(0.15)


def test_aupro_regions_are_8_connected():
    # Image 0 holds two pixels that touch at a corner: one region. Image 1 holds a region of one pixel.
    masks = [np.diag([1, 1, 0]), np.diag([1, 0, 0])]
    maps = [np.array([[5, 4, 0], [0, 1, 0], [0, 0, 0]], np.float32), np.zeros((3, 3), np.float32)]
    # 5 -> (0, mean(1/2, 0) = 1/4); 4 -> (1/15, 1/4). As three regions the overlap would be mean(1, 0, 0) =
    # 1/3.
    assert metrics.aupro(masks, maps, limit=1 / 15) == pytest.approx(1 / 4)


@given(maps_and_masks(), st.sampled_from([0.05, 0.3, 1.0]))
def test_aupro_against_naive(case, limit):
    masks, maps = case
    assert metrics.aupro(masks, maps, limit=limit) == pytest.approx(naive_aupro(masks, maps, limit), abs=1e-9)


def test_nominal_precision_recall_by_hand():
    # Two training images of 4x4 pixels on a 2x2 grid; the second has a defect pixel in its upper right cell.
    mask = np.zeros((4, 4), dtype=np.uint8)
    mask[1, 2] = 255
    got = metrics.nominal_precision_recall([0, 0, 1, 1, 1], [0, 3, 1, 2, 2], [None, mask], (2, 2))
    # Extracted, each once: (0,0) (0,3) (1,1) (1,2); of these (1,1) is the defect. True nominals: 7 of 8.
    assert got == metrics.NominalFigures(3 / 4, 3 / 7, 4, 3, 7, 8)
    # Without the places 0 and 2: (0,3) (1,1) are extracted, of 3 true nominals.
    inside = metrics.nominal_precision_recall([0, 1], [3, 1], [None, mask], (2, 2), cells=np.array([1, 3]))
    assert inside == metrics.NominalFigures(1 / 2, 1 / 3, 2, 1, 3, 4)


def test_nominal_figures_of_an_empty_model_have_no_precision():
    got = metrics.nominal_precision_recall(np.zeros(0, int), np.zeros(0, int), [None], (2, 2))
    assert got.precision is None
    assert got.recall == 0.0


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_defect_cells_against_naive(height, width, h, w, seed):
    mask = np.random.default_rng(seed).random((height, width)) < 0.2
    got = metrics.defect_cells(mask, (h, w))
    for r in range(h):
        for c in range(w):
            rows = slice(int(np.floor(r * height / h)), int(np.ceil((r + 1) * height / h)))
            columns = slice(int(np.floor(c * width / w)), int(np.ceil((c + 1) * width / w)))
            assert got[r, c] == mask[rows, columns].any()


@pytest.mark.parametrize("figure", [metrics.auroc, metrics.average_precision, metrics.best_f1])
def test_ranking_errors(figure):
    with pytest.raises(DataError, match="all 2 are good"):
        figure([0, 0], [1.0, 2.0])
    with pytest.raises(DataError, match="all 2 are defective"):
        figure([1, 1], [1.0, 2.0])
    with pytest.raises(MixedSizesError, match="one length"):
        figure([0, 1], [1.0, 2.0, 3.0])
    with pytest.raises(NonFiniteError, match="scores"):
        figure([0, 1], [1.0, np.nan])
    with pytest.raises(NonFiniteError, match="scores"):
        figure([0, 1], [1.0, np.inf])
    with pytest.raises(ParameterError, match="labels"):
        figure([0, 2], [1.0, 2.0])


def test_aupro_errors():
    mask = np.array([[1, 0]])
    with pytest.raises(DataError, match="no defect pixel"):
        metrics.aupro([mask * 0], [mask.astype(float)])
    with pytest.raises(DataError, match="no normal pixel"):
        metrics.aupro([mask * 0 + 1], [mask.astype(float)])
    with pytest.raises(MixedSizesError, match=r"masks\[0\]"):
        metrics.aupro([mask], [np.zeros((2, 2))])
    with pytest.raises(MixedSizesError, match="2 masks for 1"):
        metrics.aupro([mask, mask], [np.zeros((1, 2))])
    with pytest.raises(NonFiniteError, match=r"maps\[0\]"):
        metrics.aupro([mask], [np.array([[np.nan, 0.0]])])
    with pytest.raises(ParameterError, match="limit"):
        metrics.aupro([mask], [np.zeros((1, 2))], limit=0.0)


def test_nominal_errors():
    with pytest.raises(ParameterError, match="image_index"):
        metrics.nominal_precision_recall([1], [0], [None], (2, 2))
    with pytest.raises(ParameterError, match="patch_index"):
        metrics.nominal_precision_recall([0], [4], [None], (2, 2))
    with pytest.raises(MixedSizesError, match="image_index"):
        metrics.nominal_precision_recall([0, 0], [1], [None], (2, 2))
