"""The paper's evaluation protocol for one class (ALGORITHM section 7).

Predictions are compared with the truth *at the network's input resolution*: each mask is resized (nearest), cropped
and rotated like its image. Pixel figures are over all pixels of all test images. The corruptions are in the test set
too; all figures are given with and without them. One float32 map of each test image is kept (0.2 MB at 224 x 224).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..array_types import BoolArray, FloatArray, IndexArray
from ..estimator import InReaCh
from ..images.alignment import rotate_mask
from ..images.preprocess import Geometry
from ..method.scoring import anomaly_map
from ..progress import Progress, no_progress
from . import metrics
from .feature_cache import CachedDescriber, FeatureCache
from .mvtec import Layout, Sample, make_training_set, read_dataset, read_mask
from .supplement import PROPOSED, expected_figures


@dataclass(frozen=True)
class Figures:
    """Figures over one set of test images, 0 to 1; None where undefined (no defective or no good image or pixel)."""

    images: int
    defective: int
    image_auroc: float | None
    pixel_auroc: float | None
    pro: float | None
    image_average_precision: float | None
    pixel_average_precision: float | None
    image_best_f1: float | None
    pixel_best_f1: float | None


@dataclass(frozen=True)
class ClassResult:
    """One fit of one class, evaluated.

    Attributes:
        with_overlap, without_overlap: figures over all test images, and over those that were not trained on.
        overlap: names of the test images that were trained on.
        nominal: precision and recall of the extracted nominal patches, and the counts behind them.
        counts: training and test images, corruptions, defective ones, nominal patches.
        seconds: fit, predict, metrics and total, wall clock; a feature cache shortens the first two.
        fit_report: the fit's own counts, and seconds of each stage (`FitReport.as_dict`).
        expected: the supplement's figures for the same class, corruption level and configuration, or None
            (``image_auroc``, ``pixel_auroc``, ``transpose_score``).
        label: name of the run in a table (an ablation row, a depth); empty for a plain run.
    """

    class_name: str
    corrupt: int
    shuffle: int | None
    preset: str
    label: str
    backbone: str
    parameters: dict[str, Any]
    with_overlap: Figures
    without_overlap: Figures
    overlap: tuple[str, ...]
    nominal: metrics.NominalFigures
    transpose_score: float | None
    positions: bool
    counts: dict[str, int]
    seconds: dict[str, float]
    fit_report: dict[str, Any]
    expected: dict[str, float | None] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Nested dictionary of JSON types."""
        return asdict(self) | {"nominal": self.nominal._asdict(), "overlap": list(self.overlap)}


def evaluate_class(
    root: str | Path,
    class_name: str,
    *,
    corrupt: int = 0,
    shuffle: int | None = None,
    preset: str = "paper",
    parameters: Mapping[str, Any] | None = None,
    backbone: Any = None,
    layout: Layout = "mvtec",
    cache: str | Path | FeatureCache | None = None,
    progress: Progress | None = None,
    label: str = "",
    table2_column: str | None = PROPOSED,
) -> ClassResult:
    """Fits one class with ``corrupt`` corruptions and evaluates it on its test set.

    Args:
        root, class_name, layout: the data set, see `read_dataset`.
        corrupt, shuffle: the training list, see `make_training_set`.
        preset, parameters, backbone: as for `InReaCh`; backbone is a name or a `Backbone`, None for the preset's.
        cache: a folder or `FeatureCache` for descriptors, shared by any number of runs.
        progress: called as progress(stage, done, total).
        label: see `ClassResult`.
        table2_column: the column of the supplement's Table 2 with which the pixel AUROC is compared.

    Raises:
        The errors of `read_dataset` and of `InReaCh`. A broken image ends the evaluation, because figures over fewer
        images would not be comparable.
    """
    times = [time.perf_counter()]
    dataset = read_dataset(root, class_name, layout=layout)
    training = make_training_set(dataset, corrupt=corrupt, shuffle=shuffle)
    chosen = dict(parameters or {})
    if backbone is not None:
        chosen["backbone"] = backbone
    # No figure depends on the threshold; scoring 64 training images for it would cost as much as a test set.
    chosen.setdefault("threshold_images", 2)
    model = InReaCh(preset=preset, **chosen)
    if cache is not None:
        cache = cache if isinstance(cache, FeatureCache) else FeatureCache(cache)
        model._describer = CachedDescriber(model._describer, cache)

    model.fit([sample.path for sample in training.samples], progress=progress)
    times.append(time.perf_counter())
    geometry, angles = model.geometry, model.rotations_
    train_masks = [
        network_mask(sample, geometry, 0 if angles is None else int(angles[place]))
        for place, sample in enumerate(training.samples)
    ]
    nominal = metrics.nominal_precision_recall(*_extracted(model), train_masks, model.grid_)
    scores, maps, masks = _predict(model, dataset.test, progress or no_progress)
    times.append(time.perf_counter())

    labels = np.array([sample.defective for sample in dataset.test])
    corruptions = {sample.name for sample in compress(training.samples, training.from_test)}
    trained_on = np.array([sample.name in corruptions for sample in dataset.test])
    everything = figures(labels, scores, masks, maps)
    fresh = everything if not trained_on.any() else figures(labels, scores, masks, maps, keep=~trained_on)
    times.append(time.perf_counter())
    seconds = dict(zip(("fit", "predict", "metrics"), np.diff(times).tolist(), strict=True))
    return ClassResult(
        class_name=dataset.class_name,
        corrupt=corrupt,
        shuffle=shuffle,
        preset=preset,
        label=label,
        backbone=model.backbone.name,
        parameters=model.parameters.as_dict(),
        with_overlap=everything,
        without_overlap=fresh,
        overlap=tuple(sample.name for sample in dataset.test if sample.name in corruptions),
        nominal=nominal,
        transpose_score=model.transpose_score_,
        positions=bool(model.positions_),
        counts={
            "train": len(training.samples),
            "train_defective": sum(sample.defective for sample in training.samples),
            "corruptions": sum(training.from_test),
            "test": len(dataset.test),
            "test_defective": int(labels.sum()),
            "overlap_defective": int((labels & trained_on).sum()),
            "nominal_patches": len(model.nominal_),
        },
        seconds=seconds | {"total": times[-1] - times[0]},
        fit_report=model.report_.as_dict(),
        expected=expected_figures(dataset.class_name, corrupt, table2_column),
    )


def figures(
    labels: BoolArray,
    scores: FloatArray,
    masks: Sequence[BoolArray],
    maps: Sequence[FloatArray],
    *,
    keep: BoolArray | None = None,
) -> Figures:
    """All figures over test images: labels and scores (n,), n masks and maps (H, W); `keep`, bool (n,), selects."""
    if keep is not None:
        labels, scores = labels[keep], scores[keep]
        masks, maps = list(compress(masks, keep)), list(compress(maps, keep))
    image = _ranking("image", labels, scores)
    pixel = _ranking("pixel", _flat(masks, bool), _flat(maps, np.float32))
    pro = metrics.aupro(masks, maps) if pixel["pixel_auroc"] is not None else None
    return Figures(images=len(labels), defective=int(labels.sum()), pro=pro, **image, **pixel)


def _flat(arrays: Sequence[Any], dtype: Any) -> Any:
    return np.concatenate([array.ravel() for array in arrays]) if arrays else np.zeros(0, dtype)


def _ranking(of: str, truth: BoolArray, scores: FloatArray) -> dict[str, float | None]:
    mixed = truth.any() and not truth.all()
    return {
        f"{of}_auroc": metrics.auroc(truth, scores) if mixed else None,
        f"{of}_average_precision": metrics.average_precision(truth, scores) if mixed else None,
        f"{of}_best_f1": metrics.best_f1(truth, scores).value if mixed else None,
    }


def network_mask(sample: Sample, geometry: Geometry, degrees: int = 0) -> BoolArray | None:
    """The sample's mask at the network's input, bool (h, w), rotated like its image; None if it has no mask.

    Pixels from outside the image count as good.
    """
    mask = read_mask(sample)
    return None if mask is None else np.asarray(rotate_mask(resize_crop_mask(mask, geometry), degrees))


def resize_crop_mask(mask: BoolArray, geometry: Geometry) -> BoolArray:
    """`Geometry.apply` for a mask: bool (H, W) to bool (h, w), nearest resampling, the same crop."""
    if geometry.resize is not None and mask.shape != geometry.resize:
        height, width = geometry.resize
        picture = Image.fromarray(mask.astype(np.uint8) * np.uint8(255))
        mask = np.asarray(picture.resize((width, height), Image.Resampling.NEAREST)) != 0
    cropped = Geometry(resize=None, crop=geometry.crop).apply(mask[:, :, None].astype(np.uint8))
    return np.asarray(cropped[:, :, 0] != 0)


def _extracted(model: InReaCh) -> tuple[IndexArray, IndexArray]:
    """Training image and patch of each nominal patch; those of an image with copies count for each of them."""
    images, patches = [model.nominal_.image_index], [model.nominal_.patch_index]
    for copy, original in enumerate(model.originals_.tolist()):
        if copy != original:
            patches.append(patches[0][images[0] == original])
            images.append(np.full(len(patches[-1]), copy, dtype=np.int64))
    return np.concatenate(images), np.concatenate(patches)


def _predict(
    model: InReaCh, samples: Sequence[Sample], progress: Progress
) -> tuple[FloatArray, list[FloatArray], list[BoolArray]]:
    """Score (n,), map and mask of every test image; map and mask at the network's input, rotated if it is."""
    scores = np.empty(len(samples), dtype=np.float32)
    maps: list[FloatArray] = []
    masks: list[BoolArray] = []
    for place, sample in enumerate(samples):
        prediction = model.predict(sample.path)
        degrees = int(prediction.rotation)
        scores[place] = prediction.score
        values = prediction.anomaly_map
        if degrees:
            # The prediction's map was rotated back, so its corners have no values: use the one before.
            values = anomaly_map(prediction.patch_scores, values.shape, model.parameters.smoothing_sigma)
        maps.append(np.asarray(values, dtype=np.float32))
        mask = network_mask(sample, model.geometry, degrees)
        masks.append(np.zeros(values.shape, dtype=bool) if mask is None else mask)
        progress("evaluate", place + 1, len(samples))
    return scores, maps, masks
