"""The paper's evaluation protocol for one class (ALGORITHM section 7).

Read the class, corrupt and order its training list, fit, predict every test image, and compare with the truth
*at network-input resolution*: each mask is resized (nearest) and cropped as its image is, and turned with it
where rotation alignment is in use. Pixel figures are over all pixels of all test images. The corruptions are
in the test set too; all figures come twice, with these images and without.

Test images are streamed; what is kept of them is one float32 map each (0.2 MB at 224x224).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..array_types import FloatArray, UInt8Array
from ..method.descriptors import Describer
from . import metrics
from .feature_cache import FeatureCache
from .mvtec import Layout, Sample, make_training_set, read_dataset, read_mask
from .supplement import expected_image_auroc, expected_pixel_auroc, expected_transpose_score

if TYPE_CHECKING:
    from ..estimator import InReaCh
    from ..images.preprocess import Geometry

Progress = Callable[[str, int, int], None]
Mask = NDArray[np.bool_]

#: The corruption level of the supplement's Table 2, the only one with pixel figures.
TABLE2_CORRUPT = 10


@dataclass(frozen=True)
class Figures:
    """Figures over one set of test images, 0..1; None where undefined (no defective or no good image or
    pixel).
    """

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
        nominal: precision and recall of the extracted nominal patches, and the counts behind them. counts:
        training and test images, corruptions, defective ones, nominal patches, channels of the model.
        seconds: fit, predict, metrics and total, wall clock; a features cache shortens the first two.
        fit_report: the fit's own counts and seconds of each stage (`FitReport.as_dict`).
        expected: the supplement's figures for the same class, corruption level and configuration, where it
        has them
            (``image_auroc``, ``pixel_auroc``, ``transpose_score``).
        label: what this run is called in a table (an ablation row, a depth); empty for a plain run.
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
        values = asdict(self)
        values["nominal"] = self.nominal._asdict()
        values["overlap"] = list(self.overlap)
        return values


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
    table2_column: str | None = "position_embedding",
) -> ClassResult:
    """Fit one class with ``corrupt`` corruptions and evaluate it on its test set.

    root, class_name, layout: the data set (`read_dataset`). corrupt, shuffle: the training list
    (`make_training_set`). preset, parameters, backbone: as for `InReaCh`; backbone is a name or a `Backbone`,
    None is the preset's. cache: a folder (or FeatureCache) for descriptors, shared by any number of runs.
    progress: called as progress(stage, done, total). table2_column: which column of the supplement's Table 2
    to set beside the pixel AUROC.

    Raises the typed errors of the reader, of `InReaCh` and of the images; a broken image ends the evaluation,
    since figures over fewer images than the protocol's would be other figures.
    """
    from ..estimator import InReaCh

    started = time.perf_counter()
    dataset = read_dataset(root, class_name, layout=layout)
    training = make_training_set(dataset, corrupt=corrupt, shuffle=shuffle)
    chosen = dict(parameters or {})
    if backbone is not None:
        chosen["backbone"] = backbone
    # No figure here depends on the threshold; scoring 64 training images for it would cost as much as a test
    # set.
    chosen.setdefault("threshold_images", 2)
    model = InReaCh(preset=preset, **chosen)
    if cache is not None:
        _use_cache(model, cache if isinstance(cache, FeatureCache) else FeatureCache(cache))

    model.fit(training.paths, progress=progress)
    fitted = time.perf_counter()
    geometry, angles = model.geometry, model.rotations_
    train_masks = [
        network_mask(sample, geometry, 0 if angles is None else int(angles[place]))
        for place, sample in enumerate(training.samples)
    ]
    nominal = metrics.nominal_precision_recall(
        model.nominal_.image_index, model.nominal_.patch_index, train_masks, model.grid_
    )
    scores, maps, masks = _predict(model, dataset.test, progress)
    predicted = time.perf_counter()

    labels = np.array([sample.defective for sample in dataset.test])
    trained_on = np.array([sample.name in training.overlap for sample in dataset.test])
    everything = figures(labels, scores, masks, maps)
    # Where nothing overlaps, nothing need be computed again.
    fresh = everything if not trained_on.any() else figures(labels, scores, masks, maps, keep=~trained_on)
    done = time.perf_counter()
    is_table2 = corrupt == TABLE2_CORRUPT and table2_column is not None
    is_table1 = table2_column == "position_embedding"
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
        overlap=tuple(sample.name for sample in dataset.test if sample.name in training.overlap),
        nominal=nominal,
        transpose_score=model.transpose_score_,
        positions=bool(model.positions_),
        counts={
            "train": len(training.samples),
            "train_defective": training.defective,
            "corruptions": sum(training.from_test),
            "test": len(dataset.test),
            "test_defective": int(labels.sum()),
            "overlap_defective": int((labels & trained_on).sum()),
            "nominal_patches": len(model.nominal_),
        },
        seconds={
            "fit": fitted - started,
            "predict": predicted - fitted,
            "metrics": done - predicted,
            "total": done - started,
        },
        fit_report=model.report_.as_dict(),
        expected={
            "image_auroc": expected_image_auroc(dataset.class_name, corrupt) if is_table1 else None,
            "pixel_auroc": expected_pixel_auroc(dataset.class_name, table2_column)
            if is_table2 and table2_column is not None
            else None,
            "transpose_score": expected_transpose_score(dataset.class_name),
        },
    )


def figures(
    labels: NDArray[np.bool_],
    scores: NDArray[np.float32],
    masks: Sequence[Mask],
    maps: Sequence[NDArray[np.float32]],
    *,
    keep: NDArray[np.bool_] | None = None,
) -> Figures:
    """All figures over test images: labels (n,) bool, scores (n,), masks and maps n of (H,W); keep (n,) picks
    some.

    A figure whose truth has one class only (all good, or all defective) is None.
    """
    chosen = list(range(len(labels))) if keep is None else np.flatnonzero(keep).tolist()
    truth, score = labels[chosen], scores[chosen]
    image_both = bool(truth.any()) and not bool(truth.all())
    some_masks, some_maps = [masks[i] for i in chosen], [maps[i] for i in chosen]
    pixels = np.concatenate([mask.ravel() for mask in some_masks]) if len(chosen) else np.zeros(0, dtype=bool)
    pixel_both = bool(pixels.any()) and not bool(pixels.all())
    values = np.concatenate([values.ravel() for values in some_maps]) if pixel_both else np.zeros(0, dtype=np.float32)
    return Figures(
        images=len(chosen),
        defective=int(truth.sum()),
        image_auroc=metrics.auroc(truth, score) if image_both else None,
        pixel_auroc=metrics.auroc(pixels, values) if pixel_both else None,
        pro=metrics.aupro(some_masks, some_maps) if pixel_both else None,
        image_average_precision=metrics.average_precision(truth, score) if image_both else None,
        pixel_average_precision=metrics.average_precision(pixels, values) if pixel_both else None,
        image_best_f1=metrics.best_f1(truth, score).value if image_both else None,
        pixel_best_f1=metrics.best_f1(pixels, values).value if pixel_both else None,
    )


def network_mask(sample: Sample, geometry: Geometry, degrees: int = 0) -> Mask | None:
    """The sample's mask as its image enters the network: bool (h,w), or None for an image without a mask.

    Resized to the geometry's ``resize`` by the nearest pixel, so that it stays binary, centre-cropped, then
    turned by ``degrees`` as the image was; pixels turned in from outside count as good.
    """
    mask = read_mask(sample)
    if mask is None:
        return None
    from ..images.alignment import rotate_mask

    fitted = resize_crop_mask(mask, geometry)
    return np.asarray(rotate_mask(fitted, degrees)) if degrees else fitted


def resize_crop_mask(mask: Mask, geometry: Geometry) -> Mask:
    """`Geometry.apply` for a mask: bool (H,W) -> bool (h,w), nearest resampling, the same crop."""
    # Geometry speaks of images only. With its own resize taken away it just crops: one definition of where.
    from PIL import Image

    from ..images.preprocess import Geometry

    if geometry.resize is not None and mask.shape != geometry.resize:
        height, width = geometry.resize
        picture = Image.fromarray(mask.astype(np.uint8) * np.uint8(255))
        mask = np.asarray(picture.resize((width, height), Image.Resampling.NEAREST)) != 0
    as_image = np.repeat(mask[:, :, None].astype(np.uint8), 3, axis=2)
    return np.asarray(Geometry(resize=None, crop=geometry.crop).apply(as_image)[:, :, 0] != 0)


def _predict(
    model: InReaCh, samples: Sequence[Sample], progress: Progress | None
) -> tuple[NDArray[np.float32], list[NDArray[np.float32]], list[Mask]]:
    """Score (n,), map and mask of every test image, the last two in the network's (aligned: turned) frame."""
    from ..method.scoring import anomaly_map

    scores = np.empty(len(samples), dtype=np.float32)
    maps: list[NDArray[np.float32]] = []
    masks: list[Mask] = []
    for place, sample in enumerate(samples):
        prediction = model.predict(sample.path)
        degrees = int(prediction.rotation)
        scores[place] = prediction.score
        values = prediction.anomaly_map
        if degrees:
            # The prediction's map was turned back and has no values in its corners; the protocol compares
            # before that.
            values = anomaly_map(prediction.patch_scores, values.shape, model.parameters.smoothing_sigma)
        maps.append(np.asarray(values, dtype=np.float32))
        mask = network_mask(sample, model.geometry, degrees)
        masks.append(np.zeros(values.shape, dtype=bool) if mask is None else mask)
        if progress is not None:
            progress("evaluate", place + 1, len(samples))
    return scores, maps, masks


def _use_cache(model: InReaCh, cache: FeatureCache) -> None:
    """Put the cache before the describer, which every image's descriptors pass through."""

    def fingerprint() -> str:
        chosen = model.parameters
        return f"{model.backbone.fingerprint}|dim={chosen.dim}|neighbourhood={chosen.neighbourhood}"

    model._describer = CachedDescriber(model._describer, cache.wrap(model._describer, fingerprint=fingerprint))


class CachedDescriber(Describer):
    """A describer behind a cache of float32 descriptors."""

    direct = False

    def __init__(self, describer: Describer, cached: Callable[[UInt8Array], FloatArray]) -> None:
        super().__init__(lambda: describer.backbone, lambda: describer.parameters)
        self._cached = cached

    def __call__(self, batch: UInt8Array, precision: str = "float32") -> FloatArray:
        """See `Describer`; another precision than float32 goes past the cache."""
        return self._cached(batch) if precision == "float32" else super().__call__(batch, precision)
