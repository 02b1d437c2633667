"""Figures of merit for detection, localisation and the nominal model (paper, section 4; ALGORITHM section 7).

Where scikit-learn has a figure (AUROC, average precision, the precision-recall curve) scikit-learn computes
it. PRO and the nominal precision and recall are computed here. Everything is exact: every distinct score is a
threshold, and equal scores are taken or left together. scikit-learn and scipy are imported on the first call.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import DataError, MixedSizesError, NonFiniteError, ParameterError

#: False-positive rate up to which PRO is integrated (Bergmann et al., MVTec AD).
PRO_LIMIT = 0.3


class BestF1(NamedTuple):
    """The largest F1 over all thresholds, and the (highest) threshold that reaches it: positive is ``score
    >= threshold``.
    """

    value: float
    threshold: float


class NominalFigures(NamedTuple):
    """How well the nominal model was extracted: rates in 0..1 (None: undefined) and the counts that they
    come from.
    """

    precision: float | None
    recall: float | None
    extracted: int
    extracted_true: int
    true_nominal: int
    patches: int


def auroc(labels: ArrayLike, scores: ArrayLike) -> float:
    """Area under the ROC curve; labels (n,) bool or 0/1 (1 is a defect), scores (n,) float.

    Raises DataError when only one class is present, MixedSizesError when the lengths differ, NonFiniteError
    for NaN or infinity, ParameterError for labels that are not binary. The same holds for the other ranking
    figures.
    """
    truth, score = _checked(labels, scores)
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(truth, score))


def average_precision(labels: ArrayLike, scores: ArrayLike) -> float:
    """Average precision: precision summed over the steps of recall, no interpolation. Arguments as for
    `auroc`.
    """
    truth, score = _checked(labels, scores)
    from sklearn.metrics import average_precision_score

    return float(average_precision_score(truth, score))


def best_f1(labels: ArrayLike, scores: ArrayLike) -> BestF1:
    """The best F1 that any threshold reaches. Arguments as for `auroc`."""
    truth, score = _checked(labels, scores)
    from sklearn.metrics import precision_recall_curve

    precision, recall, thresholds = precision_recall_curve(truth, score)
    precision, recall = precision[:-1], recall[:-1]  # the curve's last point (1, 0) has no threshold
    total = precision + recall
    f1 = np.divide(2.0 * precision * recall, total, out=np.zeros_like(total), where=total > 0)
    # Thresholds ascend: among equals the last is the strictest.
    best = len(f1) - 1 - int(np.argmax(f1[::-1]))
    return BestF1(float(f1[best]), float(thresholds[best]))


def aupro(
    masks: Sequence[ArrayLike] | NDArray[Any],
    maps: Sequence[ArrayLike] | NDArray[Any],
    *,
    limit: float = PRO_LIMIT,
) -> float:
    """Area under the per-region-overlap curve up to a false-positive rate of ``limit``, divided by ``limit``
    (0..1).

    masks: n ground-truth masks (H,W), non-zero is defect; maps: n anomaly maps (H,W), of the same sizes. A
    region is an 8-connected component of one image's mask (scipy.ndimage.label), as in the MVTec AD
    evaluation; every region has the same weight whatever its size. Sorting all pixels once gives the curve at
    every distinct score, where a defect pixel lifts the overlap by 1 / (regions * its region's size) and a
    normal pixel the false-positive rate by 1 / (normal pixels); the area is the trapezoids', cut at ``limit``
    by linear interpolation.

    Raises DataError when no defect pixel or no normal pixel is there, MixedSizesError when sizes differ,
    NonFiniteError for NaN or infinity in a map, ParameterError when limit is not in (0, 1].
    """
    if not 0.0 < limit <= 1.0:
        raise ParameterError(f"limit: must be above 0 and at most 1, got {limit!r}")
    if len(masks) != len(maps):
        raise MixedSizesError(f"masks and maps: {len(masks)} masks for {len(maps)} maps; give one mask for each map")
    from scipy.ndimage import label

    eight = np.ones((3, 3), dtype=np.int64)
    scores: list[NDArray[np.float32]] = []
    regions: list[NDArray[np.int32]] = []  # 0: normal pixel, r: pixel of region r, counted over all images
    n_regions = 0
    for place, (mask_like, map_like) in enumerate(zip(masks, maps, strict=True)):
        mask, score = np.asarray(mask_like) != 0, np.asarray(map_like)
        if mask.ndim != 2 or mask.shape != score.shape:
            raise MixedSizesError(
                f"masks[{place}] is {mask.shape} and maps[{place}] is {score.shape}; both must be one (H,W)"
            )
        _check_finite(score, f"maps[{place}]")
        components, count = label(mask, structure=eight)
        regions.append(np.where(mask, components + n_regions, 0).astype(np.int32).ravel())
        scores.append(score.ravel())
        n_regions += int(count)
    if n_regions == 0:
        raise DataError("masks: no defect pixel in any mask; PRO needs at least one defective region")
    region, score = np.concatenate(regions), np.concatenate(scores)
    sizes = np.bincount(region, minlength=n_regions + 1)
    if sizes[0] == 0:
        raise DataError("masks: no normal pixel in any mask; PRO needs normal pixels for its false-positive rate")
    order = np.argsort(score)[::-1]  # ties stay together below, so their order among themselves is of no matter
    score, region = score[order], region[order]
    del order
    last_of_tie = np.flatnonzero(np.append(score[1:] != score[:-1], True))
    # The false-positive rate is summed in integers, so that a limit of the form m / normal pixels is met
    # exactly.
    fpr = np.cumsum(region == 0)[last_of_tie] / float(sizes[0])
    lift = 1.0 / (n_regions * np.maximum(sizes, 1).astype(np.float64))
    lift[0] = 0.0
    pro = np.cumsum(lift[region])[last_of_tie]
    fpr, pro = np.concatenate(([0.0], fpr)), np.concatenate(([0.0], pro))
    return _area_up_to(fpr, pro, limit) / limit


def nominal_precision_recall(
    image_index: ArrayLike,
    patch_index: ArrayLike,
    masks: Sequence[ArrayLike | None],
    grid: tuple[int, int],
) -> NominalFigures:
    """Precision and recall of the extracted nominal patches (paper, section 4.3; ALGORITHM section 7).

    image_index, patch_index: int (n,), which patch of which training image each nominal patch is. masks: one
    (H,W) mask a training image in the fit's order, at network-input resolution, non-zero is defect; None is a
    good image. A patch is a true nominal when its cell of the mask (`defect_cells`) is empty. Precision: true
    nominals among those extracted; recall: extracted among all true nominals of the training set. A patch
    given twice counts once.

    Raises ParameterError for an index outside the training set, MixedSizesError for indices of different
    lengths.
    """
    h, w = grid
    images, patches = np.asarray(image_index), np.asarray(patch_index)
    if images.ndim != 1 or images.shape != patches.shape:
        raise MixedSizesError(f"image_index {images.shape} and patch_index {patches.shape} must be one (n,) each")
    for name, values, end in (("image_index", images, len(masks)), ("patch_index", patches, h * w)):
        if values.size and (values.min() < 0 or values.max() >= end):
            raise ParameterError(f"{name}: values must be in 0..{end - 1}, got {values.min()}..{values.max()}")
    nominal = np.ones((len(masks), h * w), dtype=bool)
    for place, mask in enumerate(masks):
        if mask is not None:
            nominal[place] = ~defect_cells(mask, grid).ravel()
    taken = np.zeros_like(nominal)
    taken[images.astype(np.int64), patches.astype(np.int64)] = True
    extracted, hit, true = int(taken.sum()), int((taken & nominal).sum()), int(nominal.sum())
    return NominalFigures(
        precision=hit / extracted if extracted else None,
        recall=hit / true if true else None,
        extracted=extracted,
        extracted_true=hit,
        true_nominal=true,
        patches=nominal.size,
    )


def defect_cells(mask: ArrayLike, grid: tuple[int, int]) -> NDArray[np.bool_]:
    """Which cells of a (h,w) patch grid hold any defect pixel of the (H,W) mask: bool (h,w).

    Cell (r,c) is rows floor(r*H/h) .. ceil((r+1)*H/h)-1, columns alike: where H is no multiple of h a
    boundary pixel belongs to both its cells, so that no defect pixel falls between two.
    """
    pixels = np.asarray(mask) != 0
    h, w = grid
    if pixels.ndim != 2:
        raise MixedSizesError(f"mask: must be (H,W), got {pixels.shape}")
    if h < 1 or w < 1:
        raise ParameterError(f"grid: must be two positive numbers, got {grid!r}")
    height, width = pixels.shape
    rows, columns = np.arange(h), np.arange(w)
    top, bottom = rows * height // h, -((rows + 1) * height // -h)
    left, right = columns * width // w, -((columns + 1) * width // -w)
    count = np.zeros((height + 1, width + 1), dtype=np.int64)  # defect pixels above and left of each corner
    np.cumsum(np.cumsum(pixels, axis=0, dtype=np.int64), axis=1, out=count[1:, 1:])
    inside = (
        count[np.ix_(bottom, right)]
        - count[np.ix_(top, right)]
        - count[np.ix_(bottom, left)]
        + count[np.ix_(top, left)]
    )
    return np.asarray(inside > 0)


def _area_up_to(x: NDArray[np.float64], y: NDArray[np.float64], limit: float) -> float:
    """Trapezoid area of the ascending curve (x, y) over 0..limit, the last piece cut by linear
    interpolation.
    """
    inside = int(np.searchsorted(x, limit, side="right"))  # x[:inside] <= limit; x starts at 0
    area = float(np.sum(np.diff(x[:inside]) * (y[1:inside] + y[: inside - 1]) * 0.5))
    if inside < len(x) and x[inside - 1] < limit:
        x0, x1, y0, y1 = x[inside - 1], x[inside], y[inside - 1], y[inside]
        at_limit = y0 + (y1 - y0) * (limit - x0) / (x1 - x0)
        area += float((limit - x0) * (y0 + at_limit) * 0.5)
    return area


def _checked(labels: ArrayLike, scores: ArrayLike) -> tuple[NDArray[np.bool_], NDArray[Any]]:
    """Labels as bool (n,) and scores as float (n,), or the typed error that says what is wrong."""
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


def _check_finite(values: NDArray[Any], name: str) -> None:
    if not np.issubdtype(values.dtype, np.number):
        raise ParameterError(f"{name}: must be numbers, got dtype {values.dtype}")
    finite = np.isfinite(values)
    if not finite.all():
        first = np.argwhere(~finite)[0].tolist()
        raise NonFiniteError(f"{name}: NaN or infinity at {first}; scores must be finite")
