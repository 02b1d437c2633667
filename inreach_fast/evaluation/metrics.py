"""Figures of merit for detection, localisation and the nominal model (paper, section 4; ALGORITHM section 7).

AUROC, average precision and the precision-recall curve are scikit-learn's; PRO and the nominal precision and recall
are computed here. All are exact: every distinct score is a threshold. scikit-learn is imported when called.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.ndimage import label

from ..array_types import Array, BoolArray, DoubleArray, FloatArray, IndexArray, Int32Array
from ..errors import DataError, MixedSizesError, NonFiniteError, ParameterError


class BestF1(NamedTuple):
    """The largest F1 over all thresholds, and the highest threshold with it (positive: ``score >= threshold``)."""

    value: float
    threshold: float


class NominalFigures(NamedTuple):
    """How well the nominal patches were extracted: rates 0 to 1 (None: undefined) and the counts behind them.

    ``extracted_true`` and ``true_nominal`` are None if a defective training image has no mask.
    """

    precision: float | None
    recall: float | None
    extracted: int
    extracted_true: int | None
    true_nominal: int | None
    patches: int


def auroc(labels: ArrayLike, scores: ArrayLike) -> float:
    """Area under the ROC curve.

    Args:
        labels: bool or 0/1 (n,), 1 is a defect. scores: float (n,).

    Raises:
        DataError: only one class is present. MixedSizesError: the lengths differ. NonFiniteError: NaN or infinity.
        ParameterError: labels are not binary.
    """
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(*_checked(labels, scores)))


def roc_curve(labels: ArrayLike, scores: ArrayLike) -> tuple[DoubleArray, DoubleArray]:
    """The curve under which `auroc` is the area: false-positive rates, ascending from 0, and true-positive rates."""
    from sklearn.metrics import roc_curve as curve_of

    fpr, tpr, _ = curve_of(*_checked(labels, scores))
    return np.asarray(fpr, np.float64), np.asarray(tpr, np.float64)


def average_precision(labels: ArrayLike, scores: ArrayLike) -> float:
    """Average precision: precision summed over the steps of recall, no interpolation; see `auroc`."""
    from sklearn.metrics import average_precision_score

    return float(average_precision_score(*_checked(labels, scores)))


def best_f1(labels: ArrayLike, scores: ArrayLike) -> BestF1:
    """The best F1 over all thresholds; arguments and errors as for `auroc`."""
    from sklearn.metrics import precision_recall_curve

    precision, recall, thresholds = precision_recall_curve(*_checked(labels, scores))
    precision, recall = precision[:-1], recall[:-1]  # the curve's last point (1, 0) has no threshold
    total = precision + recall
    f1 = np.divide(2.0 * precision * recall, total, out=np.zeros_like(total), where=total > 0)
    # Thresholds ascend: among equals the last is the strictest.
    best = len(f1) - 1 - int(np.argmax(f1[::-1]))
    return BestF1(float(f1[best]), float(thresholds[best]))


def aupro(
    masks: Sequence[ArrayLike] | Array,
    maps: Sequence[ArrayLike] | Array,
    *,
    limit: float = 0.3,
    inspected: Sequence[BoolArray] | None = None,
) -> float:
    """PRO: area under the per-region-overlap curve up to a false-positive rate, divided by that rate (0 to 1).

    A region is an 8-connected component of one image's mask, as in the MVTec AD evaluation. All regions have the same
    weight. The curve has a point at every distinct score; the area is that of its trapezoids, the last one cut at
    ``limit`` by linear interpolation.

    Args:
        masks: n ground-truth masks (H, W), non-zero is defect. maps: n anomaly maps (H, W) of the same sizes.
        inspected: n masks (H, W) of the pixels that count; None: all.
        limit: the false-positive rate, above 0 and at most 1; 0.3 as for MVTec AD (Bergmann et al.).

    Raises:
        DataError: no defect pixel or no normal pixel. MixedSizesError: the sizes differ. NonFiniteError: NaN or
        infinity in a map. ParameterError: limit.
    """
    if not 0.0 < limit <= 1.0:
        raise ParameterError(f"limit: must be above 0 and at most 1, got {limit!r}")
    return _area_up_to(*pro_curve(masks, maps, inspected=inspected), limit) / limit


def pro_curve(
    masks: Sequence[ArrayLike] | Array,
    maps: Sequence[ArrayLike] | Array,
    *,
    inspected: Sequence[BoolArray] | None = None,
) -> tuple[DoubleArray, DoubleArray]:
    """The curve under which `aupro` is the area: false-positive rates, ascending from 0, and per-region overlaps.

    Arguments and errors as for `aupro`.
    """
    if len(masks) != len(maps):
        raise MixedSizesError(f"masks and maps: {len(masks)} masks for {len(maps)} maps; give one mask for each map")
    scores: list[FloatArray] = []
    regions: list[Int32Array] = []  # 0: normal pixel, r: pixel of region r, counted over all images
    n_regions = 0
    for place, (mask_like, map_like) in enumerate(zip(masks, maps, strict=True)):
        mask, score = np.asarray(mask_like) != 0, np.asarray(map_like)
        counts = np.ones(score.shape, dtype=bool) if inspected is None else inspected[place]
        if mask.ndim != 2 or mask.shape != score.shape:
            shapes = f"masks[{place}] is {mask.shape} and maps[{place}] is {score.shape}"
            raise MixedSizesError(f"{shapes}; both must be one (H,W)")
        _check_finite(score if inspected is None else score[counts], f"maps[{place}]")
        components, count = label(mask & counts, structure=np.ones((3, 3)))
        regions.append(np.where(components > 0, components + n_regions, 0).astype(np.int32)[counts])
        scores.append(score[counts])
        n_regions += int(count)
    if n_regions == 0:
        raise DataError("masks: no defect pixel in any mask; PRO needs at least one defective region")
    region, score = np.concatenate(regions), np.concatenate(scores)
    sizes = np.bincount(region, minlength=n_regions + 1)
    if sizes[0] == 0:
        raise DataError("masks: no normal pixel in any mask; PRO needs normal pixels for its false-positive rate")
    order = np.argsort(score)[::-1]  # the order of equal scores does not matter
    score, region = score[order], region[order]
    last_of_tie = np.flatnonzero(np.append(score[1:] != score[:-1], True))
    # Summed in integers, so that a limit of the form m / normal pixels is met exactly.
    fpr = np.cumsum(region == 0)[last_of_tie] / float(sizes[0])
    lift = 1.0 / (n_regions * np.maximum(sizes, 1).astype(np.float64))
    lift[0] = 0.0
    pro = np.cumsum(lift[region])[last_of_tie]
    return np.concatenate(([0.0], fpr)), np.concatenate(([0.0], pro))


def nominal_precision_recall(
    image_index: ArrayLike,
    patch_index: ArrayLike,
    masks: Sequence[ArrayLike | None],
    grid: tuple[int, int],
    *,
    cells: IndexArray | None = None,
) -> NominalFigures:
    """Precision and recall of the extracted nominal patches (paper, section 4.3; ALGORITHM section 7).

    A patch is truly nominal if no pixel of its cell (`defect_cells`) is defective. Precision: true nominals among the
    extracted; recall: extracted among all true nominals of the training set. A patch given twice counts once.

    Args:
        image_index, patch_index: int (n,), training image and patch of each extracted nominal patch.
        masks: (H, W) for each training image at the network's input resolution, non-zero is defect; None is good.
        grid: rows and columns of patches. cells: int64, the places of the grid that have a patch; None: all.

    Raises:
        ParameterError: an index outside the training set. MixedSizesError: indices of different lengths.
    """
    h, w = grid
    images, patches = np.asarray(image_index), np.asarray(patch_index)
    if images.ndim != 1 or images.shape != patches.shape:
        raise MixedSizesError(f"image_index {images.shape} and patch_index {patches.shape} must be one (n,) each")
    for name, values, end in (("image_index", images, len(masks)), ("patch_index", patches, h * w)):
        if values.size and (values.min() < 0 or values.max() >= end):
            raise ParameterError(f"{name}: values must be in 0..{end - 1}, got {values.min()}..{values.max()}")
    inspected = np.arange(h * w) if cells is None else cells
    nominal = np.zeros((len(masks), h * w), dtype=bool)
    nominal[:, inspected] = True
    for place, mask in enumerate(masks):
        if mask is not None:
            nominal[place] &= ~defect_cells(mask, grid).ravel()
    taken = np.zeros_like(nominal)
    taken[images.astype(np.int64), patches.astype(np.int64)] = True
    extracted, hit, true = int(taken.sum()), int((taken & nominal).sum()), int(nominal.sum())
    precision, recall = hit / extracted if extracted else None, hit / true if true else None
    return NominalFigures(precision, recall, extracted, hit, true, len(masks) * len(inspected))


def defect_cells(mask: ArrayLike, grid: tuple[int, int]) -> BoolArray:
    """Which cells of a (h, w) patch grid hold a defect pixel of the (H, W) mask: bool (h, w).

    Cell (r, c) has the rows floor(r*H/h) to ceil((r+1)*H/h)-1 and columns by the same rule: a pixel on the boundary
    of two cells belongs to both.
    """
    pixels = np.asarray(mask) != 0
    h, w = grid
    if pixels.ndim != 2:
        raise MixedSizesError(f"mask: must be (H,W), got {pixels.shape}")
    if h < 1 or w < 1:
        raise ParameterError(f"grid: must be two positive numbers, got {grid!r}")
    for cells in grid:  # down, then across
        side, cell = len(pixels), np.arange(cells)
        bounds = np.stack([cell * side // cells, -((cell + 1) * side // -cells)], axis=1)
        padded = np.pad(pixels, ((0, 1), (0, 0)))  # `reduceat` takes no bound that is the length
        pixels = np.logical_or.reduceat(padded, bounds.ravel())[::2].T
    return np.asarray(pixels)


def _area_up_to(x: DoubleArray, y: DoubleArray, limit: float) -> float:
    """Trapezoid area of the ascending curve (x, y) from 0 to limit, the last piece cut by linear interpolation."""
    inside = int(np.searchsorted(x, limit, side="right"))  # x[:inside] <= limit; x starts at 0
    area = float(np.sum(np.diff(x[:inside]) * (y[1:inside] + y[: inside - 1]) * 0.5))
    if inside < len(x) and x[inside - 1] < limit:
        x0, x1, y0, y1 = x[inside - 1], x[inside], y[inside - 1], y[inside]
        at_limit = y0 + (y1 - y0) * (limit - x0) / (x1 - x0)
        area += float((limit - x0) * (y0 + at_limit) * 0.5)
    return area


def _checked(labels: ArrayLike, scores: ArrayLike) -> tuple[BoolArray, Array]:
    raw, score = np.asarray(labels), np.asarray(scores)
    if raw.ndim != 1 or raw.shape != score.shape:
        raise MixedSizesError(f"labels {raw.shape} and scores {score.shape} must both be (n,), of one length")
    if raw.dtype != np.bool_:
        if not np.all((raw == 0) | (raw == 1)):
            raise ParameterError("labels: must be bool, or 0 for good and 1 for defect")
        raw = raw.astype(bool)
    _check_finite(score, "scores")
    positives = int(np.count_nonzero(raw))
    if positives in (0, raw.size):
        only = "good" if positives == 0 else "defective"
        raise DataError(f"labels: all {raw.size} are {only}; a ranking figure needs both good and defective ones")
    return raw, score


def _check_finite(values: Array, name: str) -> None:
    if not np.issubdtype(values.dtype, np.number):
        raise ParameterError(f"{name}: must be numbers, got dtype {values.dtype}")
    finite = np.isfinite(values)
    if not finite.all():
        first = np.argwhere(~finite)[0].tolist()
        raise NonFiniteError(f"{name}: NaN or infinity at {first}; scores must be finite")
