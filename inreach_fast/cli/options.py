"""The options that several commands share.

An option that sets a parameter of the estimator is absent from the parsed arguments unless the user gave it, so
that the preset decides the rest. Its help text takes the default from `Parameters`.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Collection
from dataclasses import fields
from pathlib import Path
from typing import Any

from ..errors import ParameterError
from ..executors import Executor, make_executor
from ..images.folders import images_of
from ..parameters import CHOICES, Parameters, real_number
from .console import Console


def positive_int(text: str) -> int:
    """argparse type: a whole number of at least 1."""
    if not (text.isascii() and text.isdigit() and int(text) >= 1):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def whole_or_none(text: str) -> int | None:
    """argparse type: a whole number of at least 1, or `none`."""
    return None if text.strip().lower() == "none" else positive_int(text)


def number_from_0(text: str) -> float:
    """argparse type: a finite number of at least 0."""
    try:
        return real_number("value", float(text), zero=True)
    except ValueError:  # and its subclass ParameterError
        raise argparse.ArgumentTypeError(f"{text!r} is not a finite number of at least 0") from None


def size(text: str) -> int | tuple[int, int]:
    """argparse type: `224` or `HEIGHTxWIDTH`."""
    found = re.fullmatch(r"([1-9]\d*)(?:[xX]([1-9]\d*))?", text.strip())
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size; give 224 or HEIGHTxWIDTH, for example 256x384")
    first, second = found.groups()
    return int(first) if second is None else (int(first), int(second))


def whole_from_0(text: str) -> int:
    """argparse type: a whole number of at least 0."""
    return 0 if text.strip() == "0" else positive_int(text)


def tile(text: str) -> int | tuple[int, int]:
    """argparse type: `3` or `ROWSxCOLUMNS`."""
    try:
        return size(text)
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of tiles; give 3 or ROWSxCOLUMNS, as 2x3") from None


def depth(text: str) -> int | str | tuple[str, ...]:
    """argparse type: `13`, `PC`, `reference` or level names `layer1.2,layer2.3`."""
    text = text.strip()
    if text.isdigit():
        return int(text)
    if text in ("reference", "PC", "pc"):
        return text.replace("pc", "PC")
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if not names:
        raise argparse.ArgumentTypeError("no depth is given; give 1 to 13, PC, reference, or level names a,b,c")
    return names


def _bit_depth(text: str) -> int | str:
    """argparse type: a whole number, or `auto`."""
    return int(text) if text.isascii() and text.isdigit() else text


PARAMETER_OPTIONS = tuple(field.name for field in fields(Parameters))

_BACKBONES = "wide_resnet50_2, efficientnet_lite2, timm:NAME or FILE.py:FACTORY"

# Group -> parameter -> help text, and the type and name of its value where that is neither a choice nor a flag.
_PARAMETERS: dict[str, dict[str, tuple[Any, ...]]] = {
    "method": {
        "preset": ("parameter set that the other options change",),
        "association": ("what confirms a patch: channels of seed images (paper), or all other images",),
        "bank_images": ("with --association all: number of images whose patches are kept", whole_or_none, "N|none"),
        "witnesses": (
            "with --association all: a patch is confirmed by the K-th nearest other image",
            positive_int,
            "K",
        ),
        "assoc_depth": ("number of seed images", positive_int, "S"),
        "seed_selection": ("seed images drawn at random, or the first ones",),
        "assoc_pairs": ("images that a seed image is compared with: all others, or only later ones",),
        "span_filter": ("drop channels with too few members",),
        "spread_filter": ("drop members that are far from their channel's mean",),
        "spread_rule": (
            "what that distance is compared with: the channel's mean distance plus --max-channel-std standard "
            "deviations, or these alone (paper), which drops even channels",
        ),
        "min_channel_length": ("keep channels with more members than this", int, "N"),
        "max_channel_std": ("largest distance of a member from its channel's mean, in standard deviations", float, "X"),
        "position": ("add position channels; auto decides by the transpose test",),
        "position_weight": ("weight of the position channels", float, "W"),
        "transpose_threshold": (
            "lowest score of the transpose test at which positions are used, in squared 8-bit intensity units",
            float,
            "T",
        ),
        "align": ("auto rotates the images into alignment if the transpose test fails",),
        "score": ("how a patch is scored",),
        "distance": ("distance of the score `nearest`",),
        "smoothing_sigma": (
            "standard deviation of the anomaly map's Gaussian filter, in pixels of the network's input; 0 for none",
            float,
            "SIGMA",
        ),
        "threshold_rule": ("how the threshold is chosen from the training images' scores",),
        "false_alarm_rate": ("with --threshold-rule evidence: share of good images that may be flagged", float, "RATE"),
        "threshold_images": ("number of training images scored to choose the threshold", positive_int, "N"),
        "random_state": ("seed of every random choice", int, "N"),
    },
    "images and network": {
        "image_size": ("size of the network's input, in pixels", size, "N|HxW"),
        "resize": (
            "size before the centre is cropped to --image-size; a preset's follows --image-size in proportion",
            size,
            "N|HxW",
        ),
        "roi": (
            "part of the images that is learnt and scored: a mask, white inside, or a polygon in shares of width and "
            "height",
            str,
            "FILE|X,Y;X,Y;X,Y...",
        ),
        "tile": ("tiles of --image-size that an image is cut into", tile, "N|ROWSxCOLUMNS"),
        "tile_overlap": ("pixels that neighbouring tiles share", whole_from_0, "N"),
        "bit_depth": ("bits in use in 16-bit images: 8, 10, 12, 14, 16, or auto (the format's)", _bit_depth, "N"),
        "max_pixels": ("pixels of the largest image that is read", positive_int, "N"),
        "backbone": (f"network: {_BACKBONES}", str, "NAME"),
        "weights": ("weights of the network", str, "official|random|PATH"),
        "depth": ("network levels: 1 to 13, PC (PatchCore's), reference, or level names a,b,c", depth, "LEVELS"),
        "normalisation": ("colour normalisation of the network's input",),
        "neighbourhood": ("side of the window that features are averaged over, odd; 1 for none", positive_int, "N"),
        "dim": ("values in a descriptor", positive_int, "D"),
        "grid_stride": ("cells of the first level in a patch, each way", whole_or_none, "N|none"),
        "pca_dim": ("principal components that replace these values, or none", whole_or_none, "D|none"),
        "batch_size": ("number of images in a batch", positive_int, "N"),
        "thumbnails": ("keep small pictures of the training images in the model, for `predict --explain`",),
        "device": ("torch device of the network; cuda also runs the kernels on the GPU", str, "NAME"),
        "backbone_runtime": ("what computes the network; auto: the fastest that is installed, see `inreach runtimes`",),
        "quantization": ("int8: the network multiplies 8-bit integers, by OpenVINO; faster, and other scores",),
        "backend": ("kernel backend: native, numba, torch or auto; see `inreach backends`", str, "NAME"),
    },
}
_DEFAULT_WORDS = {
    "grid_stride": "none: as many as cover 8 x 8 pixels of the input",
    "bank_images": "none: all images",
    "false_alarm_rate": "the rate at which misses and false alarms together are least",
    "pca_dim": "none",
    "resize": "not cropped",
    "normalisation": "the network's own",
    "roi": "the whole image",
    "tile": "one",
    "quantization": "float32",
}


def add_parameters(
    parser: argparse.ArgumentParser, *, preset: str = "default", leave_out: Collection[str] = ()
) -> None:
    """Add an option for each parameter of `InReaCh` but those in `leave_out`; help texts give the preset's values."""
    defaults = Parameters.from_preset(preset)
    for title, parameters in _PARAMETERS.items():
        group = parser.add_argument_group(title)
        for name, (words, *value) in parameters.items():
            if name in leave_out:
                continue
            default = getattr(defaults, name)
            settings: dict[str, Any] = {"default": argparse.SUPPRESS}
            if value:
                settings |= {"type": value[0], "metavar": value[1]}
            elif isinstance(default, bool):
                settings["action"] = argparse.BooleanOptionalAction
            else:
                settings["choices"] = [choice for choice in CHOICES[name] if choice is not None]
            flag = "--seed" if name == "random_state" else "--" + name.replace("_", "-")
            action = group.add_argument(flag, dest=name, **settings)
            action.help = f"{words} (default: {_default_words(name, default)})"


def _default_words(name: str, value: Any) -> str:
    if value is None:
        return _DEFAULT_WORDS[name]
    if isinstance(value, tuple):
        return "x".join(map(str, value))
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}" if isinstance(value, float) else str(value)


def parameters_of(args: argparse.Namespace) -> dict[str, Any]:
    """The estimator's parameters that the user gave."""
    return {name: value for name, value in vars(args).items() if name in PARAMETER_OPTIONS}


def add_folder(parser: argparse.ArgumentParser, what: str = "training images; defects may be among them") -> None:
    parser.add_argument("folder", type=Path, metavar="DIR", help=f"folder of {what}")
    add_reading(parser)


def images_in(args: argparse.Namespace, folder: Path, console: Console) -> list[Path]:
    """The images of a folder; what is passed over there is noted."""
    found = images_of(folder, recursive=args.recursive)
    if words := found.passed_over():
        console.note(f"inreach: {folder}: passed over: {words}")
    return found.images


def add_reading(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--recursive", action="store_true", help="include sub-folders")
    parser.add_argument("--skip-bad", action="store_true", help="report and skip images that cannot be read")


def add_memory_limit(parser: argparse.ArgumentParser) -> None:
    words = "memory for intermediate data, for example 2GB; the rest goes to disk (default: half of the memory)"
    parser.add_argument("--memory-limit", metavar="BYTES", help=words)


def prediction_threads(args: argparse.Namespace) -> str | None:
    """``threads`` of `InReaCh.prepare`: a number has been set for the whole process."""
    return "auto" if args.threads == "auto" else None


def add_model_overrides(parser: argparse.ArgumentParser, *, max_pixels: int | None = None) -> None:
    """Add the options that replace what a model file records; ``max_pixels``: a default in place of the model's."""
    add = parser.add_argument
    add("--backbone", metavar="NAME", help=f"the model's network, if it moved: {_BACKBONES} (default: the model's)")
    add("--weights", type=Path, metavar="PATH", help="weights file, if it moved (default: the model's)")
    add("--device", metavar="NAME", help="torch device of the network (default: the model's)")
    most = "the model's" if max_pixels is None else max_pixels
    words = f"pixels of the largest image (default: {most})"
    add("--max-pixels", type=positive_int, metavar="N", default=max_pixels, help=words)
    words = "what computes the network; another than the fit's changes scores (default: the model's)"
    add("--backbone-runtime", choices=CHOICES["backbone_runtime"], help=words)
    add_backend(parser)


def add_limits(parser: argparse.ArgumentParser) -> None:
    """Add the options that may end a search early, as in `InReaCh.predict`."""
    words = """score above which an image is anomalous; the search stops once the verdict is certain, except for
        pictures (default: the model's, searched in full)"""
    parser.add_argument("--threshold", type=float, metavar="T", help=words)
    words = "time for an image, in milliseconds; the score comes with the bounds proven by then (default: no limit)"
    parser.add_argument("--budget-ms", type=float, metavar="B", help=words)


def add_backend(parser: argparse.ArgumentParser) -> None:
    words = "kernel backend: native, numba, torch or auto (default: the model's)"
    parser.add_argument("--backend", metavar="NAME", help=words)


def model_overrides(args: argparse.Namespace) -> dict[str, Any]:
    names = ("backbone", "weights", "device", "backend", "max_pixels", "backbone_runtime")
    return {name: getattr(args, name) for name in names}


def add_executor(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("parallel work (results do not depend on it)")
    words = "number of processes, or of workers with --ray (default: this process; with --ray: all of the cluster)"
    group.add_argument("--workers", type=positive_int, metavar="N", help=words)
    words = "run on a Ray cluster; auto takes the one of RAY_ADDRESS, a running one, or starts one (default: no Ray)"
    group.add_argument("--ray", metavar="auto|HOST:PORT|ray://HOST:PORT", help=words)


def executor_of(args: argparse.Namespace) -> Executor:
    """The executor that the options ask for; raises what `make_executor` raises."""
    if args.ray is None:
        return make_executor("local" if args.workers is None else "processes", workers=args.workers)
    if args.ray == "auto":
        return make_executor("ray", workers=args.workers)
    if ":" not in args.ray or args.ray.partition(":")[0] == "processes":
        raise ParameterError(f"--ray: expected auto, HOST:PORT or ray://HOST:PORT, got {args.ray!r}")
    return make_executor(args.ray, workers=args.workers)
