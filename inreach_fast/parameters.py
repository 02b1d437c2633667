"""Every parameter of InReaCh, its presets and its checks: one frozen dataclass.

Four presets: "default" (every image a witness, ALGORITHM section 8: all patches are kept, each believed as far as
another image confirms it; fewer and shorter descriptors), "channels" (the paper's method adapted to inspection: no
border is cropped, and seed images are drawn at random, because defects may be next to each other in a folder), "paper"
(McIntosh and Branzan Albu, ICCV 2023, with its supplement) and "reference" (the authors' public program, where it
differs from the paper).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Final

import numpy as np

from .errors import ParameterError

PATCHCORE_DEPTH: Final = "PC"
REFERENCE_DEPTH: Final = "reference"
UNFOLDED: Final = "torch-unfolded"
"""The runtime of models that were saved before runtimes were recorded."""
INT8: Final = "int8"

PRESETS: Final[dict[str, dict[str, Any]]] = {
    "default": {
        "association": "all",
        "score": "reachability",
        "grid_stride": None,
        "pca_dim": 128,
        "position": "never",
        "threshold_rule": "evidence",
        "threshold_images": 1_000_000,
    },
    "channels": {},
    "paper": {"resize": (256, 256), "seed_selection": "first", "align": "auto", "spread_rule": "literal"},
    "reference": {
        "resize": (256, 256),
        "normalisation": "reference",
        "depth": REFERENCE_DEPTH,
        "seed_selection": "first",
        "assoc_pairs": "later",
        "transpose_threshold": 1000.0,
        "smoothing_sigma": 13.0,
        "spread_rule": "literal",
    },
}
# What a saved model means that was written before the parameter existed.
_UNSAVED: Final[dict[str, Any]] = {
    "spread_rule": "literal",
    "association": "seeds",
    "bank_images": None,
    "threshold_rule": "robust",
    "false_alarm_rate": None,
    "witnesses": 1,
    "grid_stride": 1,
    "pca_dim": None,
    "bit_depth": "auto",
    "max_pixels": 178_956_970,
    "backbone_runtime": "auto",
    "quantization": None,
    "thumbnails": False,
    "roi": None,
    "tile": None,
    "tile_overlap": 32,
}

CHOICES: Final[dict[str, tuple[Any, ...]]] = {
    "preset": tuple(PRESETS),
    "position": ("auto", "always", "never"),
    "align": ("never", "auto"),
    "association": ("seeds", "all"),
    "seed_selection": ("random", "first"),
    "assoc_pairs": ("all", "later"),
    "spread_rule": ("about_mean", "literal"),
    "score": ("nearest", "mahalanobis", "patchcore", "reachability"),
    "distance": ("squared_l2", "l2"),
    "threshold_rule": ("evidence", "robust"),
    "normalisation": (None, "imagenet", "reference"),
    "backbone_runtime": ("auto", "torch", UNFOLDED, "openvino", "onnxruntime"),
    "quantization": (None, INT8),
}
# name -> (least, greatest) whole number
_WHOLE: Final[dict[str, tuple[int, int]]] = {
    "dim": (1, 65536),
    "assoc_depth": (1, 1_000_000),
    "random_state": (0, 2**32 - 1),
    "min_channel_length": (0, 1_000_000_000),
    "threshold_images": (2, 1_000_000),
    "batch_size": (1, 65536),
    "max_pixels": (1, 2**40),
    "neighbourhood": (1, 15),
    "grid_stride": (1, 64),
    "tile_overlap": (0, 8192),
    "pca_dim": (1, 65536),
    "witnesses": (1, 1_000_000),
    "bank_images": (2, 1_000_000_000),
}
_MAY_BE_NONE: Final = ("pca_dim", "bank_images", "grid_stride")
# name -> whether zero is allowed
_REAL: Final[dict[str, bool]] = {
    "position_weight": True,
    "transpose_threshold": True,
    "max_channel_std": False,
    "smoothing_sigma": True,
}
_LEAST_SIDE, _GREATEST_SIDE = 8, 16384
_PAPER_SIDE = 224  # image_size for which the presets' resize is given

BIT_DEPTHS: Final = ("auto", 8, 10, 12, 14, 16)


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """Parameters of `InReaCh`; section numbers are those of ALGORITHM, S means the supplement.

    Attributes:
        preset: "default", "channels", "paper" or "reference": gives the values of all parameters that are not set.
        backbone: name of the network ("wide_resnet50_2", "efficientnet_lite2", "timm:NAME",
            "FILE.py:FACTORY"), or the name of the `Backbone` object that the estimator was given.
        weights: "official", "random" (seeded, for tests) or a file's path.
        depth: feature hierarchy (section 3, S.A): 1 to 13 residual blocks, "PC" for PatchCore's pick,
            "reference" for that of the authors' program, or a tuple of level names.
        device: torch device of the backbone; on "cuda" (or "cuda:1") the kernels run on the GPU as well (docs/gpu.md).
        backbone_runtime: what computes the backbone: "torch" (with folded BatchNorms), "openvino" or "onnxruntime"
            (extras [openvino] and [onnx]; on the CPU), or "torch-unfolded" (layer by layer, as earlier versions did).
            Features differ in their last digits. "auto": what the model was fitted with; in a first fit what is
            likely to be the fastest here, or what the environment variable INREACH_BACKBONE_RUNTIME names.
        quantization: "int8": the network's convolutions multiply 8-bit integers, in the fit and in predictions; their
            ranges are found on some of the training images. Faster where the processor has such products, by
            OpenVINO on the CPU; features, scores and threshold are other ones. None: float32.
        neighbourhood: side of the window of local aggregation, odd; 1 switches it off (ablation).
        dim: values in a descriptor.
        grid_stride: the grid of the patches is the first level's, divided by this; 2 stands for the means of 2 x 2
            cells. None: as much as it takes for a patch to cover 8 x 8 pixels of the input.
        pca_dim: number of principal components of the training images' descriptors (of a seeded sample of images) that
            replace the ``dim`` values, where these are more; None keeps them. Neither this nor ``grid_stride`` changes
            descriptors that the caller gives.
        image_size: (height, width) in pixels of the network's input; one number means a square.
        resize: (height, width) that an image is resized to before the centre is cropped to ``image_size``;
            None resizes straight to ``image_size`` and crops nothing. Where a preset has a resize, another
            ``image_size`` scales it in proportion, so that the same part of the image is seen.
        roi: region of interest: what lies outside is painted over in every image, and neither learnt nor scored. An
            image file or array (H, W), not 0 inside, with the proportions of the images; or a polygon of (x, y) in
            shares of width and height. It is kept as a text (`images.roi`). A patch counts if half of it lies inside.
        tile: (rows, columns) of overlapping tiles of ``image_size`` that an image is resized to and cut into; one
            number means as many of each; None: one tile. `images.tiles` says how they are put together.
        tile_overlap: pixels that neighbouring tiles share, at most half of ``image_size``.
        bit_depth: bits in use of samples stored in more than 8: "auto", which takes what the file's format says (a
            16-bit PNG: 16), or 8, 10, 12, 14 or 16 for cameras that use the lower bits of 16-bit files.
            `images.pixels` has the whole conversion.
        max_pixels: pixels of the largest image that is read; larger ones are refused before they are decoded.
        normalisation: None (the backbone's own), "imagenet" (RGB) or "reference" (BGR order under RGB's
            statistics, as the authors' program has it).
        position: position channels (S.D): "auto" asks the transpose test, "always", "never".
        position_weight: weight of the position channels relative to the others.
        transpose_threshold: least transpose score, in squared 8-bit intensity units, of consistent positions.
        align: "auto" tries rotation alignment on a class that fails the transpose test (S.D); "never".
        association: "seeds" (section 4: patches join channels of seed images, and the filters choose the nominal ones)
            or "all" (section 8: every patch is nominal, and has a witness in another image).
        bank_images: with association="all": patches of so many images, a seeded choice, are the model; the others are
            scored as all are, so that they can be audited. None: all images.
        witnesses: k of section 8: a patch is confirmed as far as the nearest patch of the k-th nearest other image.
        assoc_depth: number S of seed images (section 4).
        seed_selection: "random" (seeded by ``random_state``) or "first".
        random_state: seed of every random choice.
        assoc_pairs: which images meet a seed image s: "all" others (paper) or those "later", i > s
            (reference).
        span_filter, spread_filter: the two filters of section 5, each on or off.
        min_channel_length: a channel is kept if it has *more* members than this, its seed patch included.
        max_channel_std: members farther from the channel's mean than this many standard deviations are dropped.
        spread_rule: what the distance to the channel's mean is compared with: "about_mean", the mean distance plus
            ``max_channel_std`` standard deviations of the distances, or "literal", ``max_channel_std`` standard
            deviations alone (paper, reference), which drops channels whose members are about equally far from the mean.
        score: "nearest", "mahalanobis" or "patchcore" (section 6, S.C), or "reachability" (section 8).
        distance: "squared_l2" or "l2".
        smoothing_sigma: standard deviation of the map's Gaussian filter, in input pixels; 0 for none.
        threshold_rule: "evidence" (`method.evidence`: good and anomalous images as two groups of scores) or "robust"
            (`method.threshold`).
        threshold_images: training images scored, leave-one-image-out, to choose the threshold.
        false_alarm_rate: with threshold_rule="evidence": share of good images that may be flagged, above 0 and below 1;
            None: the threshold that misses and false alarms together are least at.
        batch_size: number of images that `predict` processes at a time; results do not depend on it.
        thumbnails: whether the model keeps small pictures of the training images (at most 96 pixels a side), which
            `Prediction.explain` shows; without them it names the images. Results do not depend on it.
        backend: kernel backend, "auto" for the fastest available one; results do not depend on it.
    """

    preset: str = "default"
    backbone: str = "wide_resnet50_2"
    weights: str = "official"
    depth: int | str | tuple[str, ...] = 13
    device: str = "cpu"
    backbone_runtime: str = "auto"
    quantization: str | None = None
    neighbourhood: int = 3
    dim: int = 1024
    grid_stride: int | None = 1
    pca_dim: int | None = None
    image_size: tuple[int, int] = (224, 224)
    resize: tuple[int, int] | None = None
    roi: str | None = None
    tile: tuple[int, int] | None = None
    tile_overlap: int = 32
    bit_depth: int | str = "auto"
    max_pixels: int = 178_956_970
    normalisation: str | None = None
    position: str = "auto"
    position_weight: float = 5.0
    transpose_threshold: float = 600.0
    align: str = "never"
    association: str = "seeds"
    bank_images: int | None = None
    witnesses: int = 1
    assoc_depth: int = 10
    seed_selection: str = "random"
    random_state: int = 0
    assoc_pairs: str = "all"
    span_filter: bool = True
    spread_filter: bool = True
    spread_rule: str = "about_mean"
    min_channel_length: int = 3
    max_channel_std: float = 5.0
    score: str = "nearest"
    distance: str = "squared_l2"
    smoothing_sigma: float = 5.0
    threshold_rule: str = "robust"
    threshold_images: int = 64
    false_alarm_rate: float | None = None
    batch_size: int = 8
    thumbnails: bool = True
    backend: str = "auto"

    def __post_init__(self) -> None:
        given = vars(self)
        for name, allowed in CHOICES.items():
            _check_choice(name, given[name], allowed)
        # The dataclass is frozen; this is its own constructor.
        whole = {n: limits for n, limits in _WHOLE.items() if given[n] is not None or n not in _MAY_BE_NONE}
        given |= {name: _whole(name, given[name], *limits) for name, limits in whole.items()}
        given |= {name: real_number(name, given[name], zero) for name, zero in _REAL.items()}
        for name in ("span_filter", "spread_filter", "thumbnails"):
            if not isinstance(given[name], bool):
                raise ParameterError(f"{name}: expected True or False, got {given[name]!r}")
        given |= {name: _text(name, given[name]) for name in ("backbone", "weights", "device", "backend")}
        if self.quantization is not None and self.device != "cpu":
            raise ParameterError(
                f'quantization: int8 is computed on the CPU, not on {self.device}; set device="cpu", or leave '
                "quantization out"
            )
        given["depth"] = _depth(self.depth)
        given["bit_depth"] = _bit_depth(self.bit_depth)
        if self.neighbourhood % 2 == 0:
            raise ParameterError(f"neighbourhood: expected an odd number, 1 to 15, got {self.neighbourhood}")
        if self.score == "reachability" and self.association != "all":
            raise ParameterError('score: "reachability" needs the witnesses of association="all"; set that as well')
        if self.score == "mahalanobis" and self.association == "all":
            raise ParameterError('score: "mahalanobis" needs channels; set association="seeds"')
        if self.false_alarm_rate is not None:
            given["false_alarm_rate"] = _rate(self.false_alarm_rate)
            if self.threshold_rule != "evidence":
                raise ParameterError('false_alarm_rate: needs threshold_rule="evidence"; set that as well')
        if self.association == "seeds" and self.bank_images is not None:
            raise ParameterError('bank_images: needs association="all"; set that as well, or leave bank_images out')
        given["image_size"] = _size("image_size", self.image_size)
        if self.resize is not None:
            given["resize"] = _size("resize", self.resize)
            if self.resize[0] < self.image_size[0] or self.resize[1] < self.image_size[1]:
                raise ParameterError(
                    f"resize: {self.resize} is smaller than image_size {self.image_size}, which is cropped "
                    "from it; give a larger resize, or None to crop nothing"
                )
        if self.tile is not None:
            given["tile"] = _tile(self.tile)
            if self.resize is not None:
                raise ParameterError("tile: an image is resized to its tiles, and nothing is cropped; set resize=None")
            if 2 * self.tile_overlap > min(self.image_size):
                raise ParameterError(
                    f"tile_overlap: expected at most half of image_size {self.image_size}, got {self.tile_overlap}"
                )
        if self.roi is not None and not (isinstance(self.roi, str) and self.roi.startswith(("mask:", "polygon:"))):
            raise ParameterError(f"roi: expected a region as `images.roi.roi_text` gives it, got {self.roi!r}")
        if self.roi is not None and self.align != "never":
            raise ParameterError('roi: images that are rotated into alignment have no common region; set align="never"')

    @property
    def input_size(self) -> tuple[int, int]:
        """(height, width) of what an image is resized (and cropped) to: ``image_size``, or all tiles together."""
        if self.tile is None:
            return self.image_size
        h, w = (
            n * (side - self.tile_overlap) + self.tile_overlap
            for n, side in zip(self.tile, self.image_size, strict=True)
        )
        return h, w

    @classmethod
    def from_preset(cls, preset: str = "default", **changes: Any) -> Parameters:
        """The preset's parameters with ``changes``.

        Raises:
            ParameterError: unknown preset or parameter, or a value that is not allowed.
        """
        _check_choice("preset", preset, tuple(PRESETS))
        known = sorted(field.name for field in fields(cls))
        for name in changes:
            if name not in known:
                raise ParameterError(f"{name}: no such parameter; the parameters are {', '.join(known)}")
        given = {**PRESETS[preset], **changes, "preset": preset}
        if given.get("resize") is not None and "resize" not in changes and "image_size" in changes:
            given["resize"] = tuple(
                round(side * wanted / _PAPER_SIDE)
                for side, wanted in zip(given["resize"], _size("image_size", changes["image_size"]), strict=True)
            )
        return cls(**given)

    def with_changes(self, **changes: Any) -> Parameters:
        """A copy with some values changed, checked again."""
        return replace(self, **changes)

    def as_dict(self) -> dict[str, Any]:
        """JSON-able: tuples as lists."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in vars(self).items()}

    def to_saved(self) -> dict[str, Any]:
        """For a model file: `as_dict` without what `from_dict` adds, so that older files stay as they are."""
        return {n: v for n, v in self.as_dict().items() if n not in _UNSAVED or v != _UNSAVED[n]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Parameters:
        """The inverse of `as_dict` and `to_saved`; unknown names raise ParameterError."""
        changes = {n: tuple(v) if isinstance(v, list) else v for n, v in {**_UNSAVED, **values}.items()}
        preset = changes.pop("preset", "default")
        return cls.from_preset(preset, **changes)  # type: ignore[arg-type]


def _check_choice(name: str, value: Any, allowed: tuple[Any, ...]) -> None:
    if not (value is None or isinstance(value, str)) or value not in allowed:
        raise ParameterError(f"{name}: expected one of {', '.join(map(repr, allowed))}, got {value!r}")


def _whole(name: str, value: Any, least: int, greatest: int) -> int:
    try:
        number = None if isinstance(value, (bool, str)) or getattr(value, "ndim", None) else int(value)
    except (TypeError, ValueError, OverflowError):
        number = None
    if number is None or number != value or not least <= number <= greatest:
        raise ParameterError(f"{name}: expected a whole number from {least} to {greatest}, got {value!r}")
    return number


def real_number(name: str, value: Any, zero: bool) -> float:
    """A finite number above 0, or of at least 0 with ``zero``; anything else is a ParameterError that names it."""
    try:
        number = math.nan if isinstance(value, (bool, np.bool_, str, bytes)) or np.ndim(value) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number) or number < 0 or (number == 0 and not zero):
        least = "0 or more" if zero else "more than 0"
        raise ParameterError(f"{name}: expected a finite number, {least}, got {value!r}")
    return number


def _rate(value: Any) -> float:
    rate = real_number("false_alarm_rate", value, zero=False)
    if rate >= 1:
        raise ParameterError(f"false_alarm_rate: expected a share above 0 and below 1, got {value!r}; 0.02 means 2 %")
    return rate


def _text(name: str, value: Any) -> str:
    text = str(value) if name in ("weights", "device") and value is not None else value
    if not isinstance(text, str) or not text:
        raise ParameterError(f"{name}: expected a name, got {value!r}")
    return text


def _size(name: str, value: Any) -> tuple[int, int]:
    sides = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    if len(sides) != 2:
        raise ParameterError(f"{name}: expected one number of pixels or (height, width), got {value!r}")
    try:
        h, w = (_whole(name, side, _LEAST_SIDE, _GREATEST_SIDE) for side in sides)
    except ParameterError:
        raise ParameterError(
            f"{name}: expected whole numbers of pixels from {_LEAST_SIDE} to {_GREATEST_SIDE}, got {value!r}"
        ) from None
    return h, w


def _tile(value: Any) -> tuple[int, int]:
    counts = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    if len(counts) != 2:
        raise ParameterError(f"tile: expected one number of tiles or (rows, columns), got {value!r}")
    rows, columns = (_whole("tile", count, 1, 256) for count in counts)
    return rows, columns


def _bit_depth(value: Any) -> int | str:
    number = value if isinstance(value, str) or value is None else _whole("bit_depth", value, 8, 16)
    if number not in BIT_DEPTHS:
        raise ParameterError(f"bit_depth: expected one of {', '.join(map(repr, BIT_DEPTHS))}, got {value!r}")
    return number


def _depth(value: Any) -> int | str | tuple[str, ...]:
    if isinstance(value, str) and value in (PATCHCORE_DEPTH, REFERENCE_DEPTH):
        return value
    if isinstance(value, (tuple, list)) and value and all(isinstance(v, str) and v for v in value):
        if len(set(value)) != len(value):
            raise ParameterError(f"depth: a level is named twice in {value!r}; name each once")
        return tuple(value)
    try:
        return _whole("depth", value, 1, 13)
    except ParameterError:
        raise ParameterError(
            f"depth: expected 1 to 13, {PATCHCORE_DEPTH!r}, {REFERENCE_DEPTH!r} or a tuple of level names, "
            f"got {value!r}"
        ) from None
