"""The paper's evaluation protocol for one class (ALGORITHM section 7).

Predictions are compared with the truth *at the network's input resolution*: each mask is resized (nearest), cropped
and rotated like its image. Pixel figures are over all pixels of all test images. A figure that the data do not define
is None, and a remark says why. The corruptions are in the test set too; all figures are given with and without them.
One float32 map of each test image is kept (0.2 MB at 224 x 224).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..array_types import BoolArray, FloatArray, IndexArray
from ..errors import DataError, ImageError
from ..estimator import InReaCh
from ..images.alignment import rotate, rotate_mask
from ..images.pixels import DEFAULT_RULE, PixelRule
from ..images.preprocess import Geometry
from ..images.reading import read_image
from ..method.scoring import frame_of
from ..system.progress import Progress, no_progress
from . import metrics
from .audit_figures import AuditFigures, audit_figures
from .contestant import Contestant, InReaChContestant, PeerContestant
from .details import ClassDetails, class_details
from .feature_cache import FeatureCache
from .mvtec import Layout, Sample, make_training_set, read_dataset, read_mask, with_masks_read
from .peers import INREACH, METHODS, check_method
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
        audit: how well the defective training images are found, where there are any, and their share estimated.
        nominal: precision and recall of the extracted nominal patches, and the counts behind them.
        counts: training and test images, corruptions, defective ones, nominal patches.
        seconds: fit, predict, metrics and total, wall clock; a feature cache shortens the first two.
        fit_report: the fit's own counts, and seconds of each stage (`FitReport.as_dict`).
        expected: the supplement's figures for the same class, corruption level and configuration, or None
            (``image_auroc``, ``pixel_auroc``, ``transpose_score``).
        label: name of the run in a table (an ablation row, a depth); empty for a plain run.
        skipped: names of the training and test images that were left out because they, or their masks, cannot be read.
        details: curves and cases, if they were asked for; `as_dict` has the figures of each kind of defect of them.
        remarks: why figures are None, and what was left out, in sentences.
        method: "inreach" or a peer's name (`evaluation.METHODS`). Of a peer ``preset`` says how images were brought to
            the network's input, ``parameters`` are those that all methods share and its own, ``nominal`` has no
            figures, ``counts`` no nominal patches, ``audit`` is empty, and ``backbone`` is "its own" if it trains one.
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
    skipped: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    audit: AuditFigures = field(default_factory=AuditFigures)
    details: ClassDetails | None = field(default=None, repr=False, compare=False)
    method: str = INREACH

    def as_dict(self) -> dict[str, Any]:
        """Nested dictionary of JSON types."""
        lists = {name: list(getattr(self, name)) for name in ("overlap", "skipped", "remarks")}
        plain = asdict(replace(self, details=None)) | {"nominal": self.nominal._asdict(), **lists}
        del plain["details"]
        return plain if self.details is None else plain | {"kinds": [asdict(kind) for kind in self.details.kinds]}


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
    skip_bad: bool = False,
    cache: str | Path | FeatureCache | None = None,
    progress: Progress | None = None,
    label: str = "",
    table2_column: str | None = PROPOSED,
    details: bool = False,
    method: str = INREACH,
    training_steps: int | None = None,
) -> ClassResult:
    """Fits one class with ``corrupt`` corruptions and evaluates it on its test set.

    Args:
        root, class_name, layout: the data set, see `read_dataset`.
        corrupt, shuffle: the training list, see `make_training_set`.
        preset, parameters, backbone: as for `InReaCh`; backbone is a name or a `Backbone`, None for the preset's.
        skip_bad: leave out images that cannot be read, or whose masks cannot, and name them in the result. Figures of
            different sets of images are not comparable.
        cache: a folder or `FeatureCache` for descriptors, shared by any number of runs.
        progress: called as progress(stage, done, total).
        label: see `ClassResult`; a peer's name if it is empty.
        method: "inreach", or a peer that takes its place (`evaluation.peers`): it gets the same images, network and
            seed, and of the parameters only those that all methods share.
        training_steps: updates of the weights of peers that train a network, at least 1; None: as many as in their
            papers. Checkpoints are kept beside the cache, if there is one, and a later run continues from them.
        details: also return curves and cases, for a report; some more seconds, and all training images are scored.
        table2_column: the column of the supplement's Table 2 with which the pixel AUROC is compared.

    Raises:
        The errors of `read_dataset` and of `InReaCh`; ImageError: an image or mask cannot be read, masks before the
        fit begins. ParameterError: an unknown method, or a parameter that a peer does not know (roi, tile,
        quantization).
    """
    check_method(method)
    times = [time.perf_counter()]
    dataset = read_dataset(root, class_name, layout=layout)
    training = make_training_set(dataset, corrupt=corrupt, shuffle=shuffle)
    chosen = dict(parameters or {})
    if backbone is not None:
        chosen["backbone"] = backbone
    # Scoring training images costs as much as a test set. Where none is defective, no figure depends on it.
    is_peer = method != INREACH
    scored = not is_peer and (details or any(sample.defective for sample in training.samples))
    chosen.setdefault("threshold_images", 1_000_000 if scored else 2)
    model = InReaCh(preset=preset, **chosen)
    if cache is not None:
        cache = cache if isinstance(cache, FeatureCache) else FeatureCache(cache)
    contestant: Contestant
    if is_peer:
        contestant = PeerContestant(method, model, cache, training_steps)
    else:
        contestant = InReaChContestant(model, cache)
    rule = model.pixel_rule
    train, remarks = with_masks_read(training.samples, rule, skip_bad=skip_bad)
    test, test_remarks = with_masks_read(dataset.test, rule, skip_bad=skip_bad)
    remarks += [remark for remark in test_remarks if remark not in remarks]
    pairs = [(sample, added) for sample, added in zip(train, training.from_test, strict=True) if sample is not None]

    fitted = contestant.fit([sample.path for sample, _ in pairs], skip_bad=skip_bad, progress=progress)
    remarks += [f"{sample.path}: cannot be read" for sample, _ in pairs if str(sample.path) not in fitted]
    pairs = [(sample, added) for sample, added in pairs if str(sample.path) in fitted]
    defective = np.array([sample.defective for sample, _ in pairs])
    audit = audit_figures(defective, model.training_scores(progress=progress)) if scored else AuditFigures()
    times.append(time.perf_counter())
    nominal = metrics.NominalFigures(None, None, 0, None, None, 0)
    if not is_peer:
        model.prepare()
        nominal = _nominal_figures(model, [sample for sample, _ in pairs])
    readable = [sample for sample in test if sample is not None]
    predicted = _predict(contestant, readable, skip_bad, progress or no_progress)
    tested, scores, maps, masks = predicted.samples, predicted.scores, predicted.maps, predicted.masks
    remarks += [remark for remark in predicted.skipped if remark not in remarks]
    times.append(time.perf_counter())

    labels = np.array([sample.defective for sample in tested])
    corruptions = {sample.name for sample, added in pairs if added}
    trained_on = np.array([sample.name in corruptions for sample in tested])
    everything = figures(labels, scores, masks, maps)
    fresh = everything if not trained_on.any() else figures(labels, scores, masks, maps, keep=~trained_on)
    used = {sample.path for sample, _ in pairs} | {sample.path for sample in tested}
    skipped = {
        f"{split}/{sample.name}"
        for split, samples in (("train", dataset.train), ("test", dataset.test))
        for sample in samples
        if sample.path not in used
    }
    remarks = [*dataset.passed_over, *(f"left out: {remark}" for remark in remarks)]
    remarks += _why_undefined("with the images trained on" if trained_on.any() else "", labels, masks)
    if trained_on.any():
        remarks += _why_undefined(
            "without the images trained on", labels[~trained_on], list(compress(masks, ~trained_on))
        )
    found = None
    if details:
        found = class_details(
            tested,
            scores,
            maps,
            masks,
            threshold=None if is_peer else float(model.threshold_),
            seconds=predicted.seconds,
            image_of=lambda i: rotate(model.geometry.apply(read_image(tested[i].path, rule)), predicted.degrees[i]),
            figures=lambda keep: figures(labels, scores, masks, maps, keep=keep),
        )
    times.append(time.perf_counter())
    seconds = dict(zip(("fit", "predict", "metrics"), np.diff(times).tolist(), strict=True))
    return ClassResult(
        class_name=dataset.class_name,
        corrupt=corrupt,
        shuffle=shuffle,
        preset=preset,
        label=label or (METHODS[method] if is_peer else ""),
        with_overlap=everything,
        without_overlap=fresh,
        overlap=tuple(sample.name for sample in compress(tested, trained_on)),
        nominal=nominal,
        counts={
            "train": len(pairs),
            "train_defective": sum(sample.defective for sample, _ in pairs),
            "corruptions": len(corruptions),
            "test": len(tested),
            "test_defective": int(labels.sum()),
            "overlap_defective": int((labels & trained_on).sum()),
            **({} if is_peer else {"nominal_patches": len(model.nominal_)}),
            "skipped": len(skipped),
        },
        seconds=seconds | {"total": times[-1] - times[0]},
        expected=expected_figures(dataset.class_name, corrupt, table2_column, method),
        skipped=tuple(sorted(skipped)),
        remarks=tuple(remarks),
        audit=audit,
        details=found,
        method=method,
        **contestant.facts(),
    )


def figures(
    labels: BoolArray,
    scores: FloatArray,
    masks: Sequence[BoolArray | None],
    maps: Sequence[FloatArray],
    *,
    keep: BoolArray | None = None,
) -> Figures:
    """All figures over test images: labels and scores (n,), n masks and maps (H, W); `keep`, bool (n,), selects.

    Without a defective image's mask, None, the figures of pixels are not defined. Pixels whose map is NaN do not count.
    """
    if keep is not None:
        labels, scores = labels[keep], scores[keep]
        masks, maps = list(compress(masks, keep)), list(compress(maps, keep))
    image = _ranking("image", labels, scores)
    known = [mask for mask in masks if mask is not None]
    truth, values = _flat(known if len(known) == len(masks) else [], bool), _flat(maps, np.float32)
    inspected = None
    if np.isnan(values).any():  # outside of the region of interest
        inspected = [~np.isnan(one) for one in maps]
        truth, values = truth[~np.isnan(values)] if len(truth) else truth, values[~np.isnan(values)]
    pixel = _ranking("pixel", truth, values)
    pro = metrics.aupro(known, maps, inspected=inspected) if pixel["pixel_auroc"] is not None else None
    return Figures(images=len(labels), defective=int(labels.sum()), pro=pro, **image, **pixel)


def _flat(arrays: Sequence[Any], dtype: Any) -> Any:
    return np.concatenate([array.ravel() for array in arrays]) if arrays else np.zeros(0, dtype)


def _ranking(of: str, truth: BoolArray, scores: FloatArray) -> dict[str, float | None]:
    mixed = truth.any() and not truth.all()  # False for none
    return {
        f"{of}_auroc": metrics.auroc(truth, scores) if mixed else None,
        f"{of}_average_precision": metrics.average_precision(truth, scores) if mixed else None,
        f"{of}_best_f1": metrics.best_f1(truth, scores).value if mixed else None,
    }


def _why_undefined(where: str, labels: BoolArray, masks: Sequence[BoolArray | None]) -> list[str]:
    """Why there are no image figures, or no pixel figures, over these test images."""
    where = f" ({where})" if where else ""
    reasons = []
    if not labels.any() or labels.all():
        only = "defective" if len(labels) and labels.all() else "good"
        reasons.append(f"no image figures{where}: all {len(labels)} test images are {only}; a ranking needs both")
    known = [mask for mask in masks if mask is not None]
    if len(known) < len(masks):
        count = len(masks) - len(known)
        reasons.append(f"no pixel figures{where}: {count} defective test images have no mask (ground_truth)")
    elif not any(mask.any() for mask in known):
        reasons.append(f"no pixel figures{where}: no test image has a defective pixel where the network sees it")
    elif all(mask.all() for mask in known):
        reasons.append(f"no pixel figures{where}: no test image has a good pixel where the network sees it")
    return reasons


def _nominal_figures(model: InReaCh, samples: Sequence[Sample]) -> metrics.NominalFigures:
    """Precision and recall of the nominal patches, the training images being ``samples``."""
    geometry, angles = model.geometry, model.rotations_
    masks = [
        network_mask(sample, geometry, 0 if angles is None else int(angles[place]), model.pixel_rule)
        for place, sample in enumerate(samples)
    ]
    cells = frame_of(model.parameters, model.grid_).cells
    found = metrics.nominal_precision_recall(*_extracted(model), masks, model.grid_, cells=cells)
    if any(sample.defective and mask is None for sample, mask in zip(samples, masks, strict=True)):
        return found._replace(precision=None, recall=None, extracted_true=None, true_nominal=None)
    return found


def network_mask(
    sample: Sample, geometry: Geometry, degrees: int = 0, rule: PixelRule = DEFAULT_RULE
) -> BoolArray | None:
    """The sample's mask at the network's input, bool (h, w), rotated like its image; None if it has no mask.

    Pixels from outside the image count as good.
    """
    mask = read_mask(sample, rule)
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


@dataclass(frozen=True, eq=False)
class _Predicted:
    """Test images that could be read: score (n,), map and mask of each, at the network's input, rotated if it is.

    A mask is None if the image is defective and has none. ``skipped``: why others are left out. ``degrees`` and
    ``seconds``: of each image's rotation and prediction.
    """

    samples: list[Sample]
    scores: FloatArray
    maps: list[FloatArray]
    masks: list[BoolArray | None]
    skipped: list[str]
    degrees: list[int]
    seconds: list[float]


def _predict(contestant: Contestant, samples: Sequence[Sample], skip_bad: bool, progress: Progress) -> _Predicted:
    model = contestant.model
    found = _Predicted([], np.empty(0, np.float32), [], [], [], [], [])
    scores: list[float] = []
    for place, sample in enumerate(samples):
        progress("evaluate", place, len(samples))
        begun = time.perf_counter()
        try:
            one = contestant.predict(sample.path)
        except ImageError as error:
            if not skip_bad:
                raise
            found.skipped.append(str(error))
            continue
        found.seconds.append(time.perf_counter() - begun)
        found.degrees.append(one.degrees)
        values = one.anomaly_map
        mask = network_mask(sample, model.geometry, one.degrees, model.pixel_rule)
        if mask is None and not sample.defective:
            mask = np.zeros(values.shape, dtype=bool)
        if mask is not None and model.parameters.roi is not None:
            mask = mask & ~np.isnan(values)
        found.samples.append(sample)
        found.maps.append(np.asarray(values, dtype=np.float32))
        found.masks.append(mask)
        scores.append(one.score)
    progress("evaluate", len(samples), len(samples))
    if not scores:
        raise DataError(f"{samples[0].path}: cannot be read, and no other test image can; give other images")
    return replace(found, scores=np.asarray(scores, dtype=np.float32))
