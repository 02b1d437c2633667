"""Command-line options and the estimator's parameters.

Every option of the estimator is absent (not None) unless the user gave it, so that what is not said is left
to the preset.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

_OFF_ON = argparse.BooleanOptionalAction

PARAMETER_OPTIONS = (
    "preset",
    "backbone",
    "weights",
    "depth",
    "device",
    "neighbourhood",
    "dim",
    "image_size",
    "resize",
    "normalisation",
    "position",
    "position_weight",
    "transpose_threshold",
    "align",
    "assoc_depth",
    "seed_selection",
    "random_state",
    "assoc_pairs",
    "span_filter",
    "spread_filter",
    "min_channel_length",
    "max_channel_std",
    "score",
    "distance",
    "smoothing_sigma",
    "threshold_images",
    "batch_size",
    "backend",
)
"""Every parameter of `InReaCh` that the command line sets."""


def common_options() -> argparse.ArgumentParser:
    """Options that every command takes (a parent parser)."""
    parent = argparse.ArgumentParser(add_help=False)
    group = parent.add_argument_group("output and running")
    group.add_argument("-q", "--quiet", action="store_true", help="print results and errors, nothing else")
    group.add_argument("--json", action="store_true", help="machine-readable result on stdout, nothing else there")
    group.add_argument(
        "--progress",
        action=_OFF_ON,
        default=None,
        help="progress on stderr (default: when stderr is a terminal)",
    )
    group.add_argument("--threads", type=positive_int, metavar="N", help="CPU threads (default: all cores)")
    group.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parent


def estimator_options(*, folder: bool = True, leave_out: Collection[str] = ()) -> argparse.ArgumentParser:
    """Options that become parameters of `InReaCh` (a parent parser).

    Args:
        folder: take the training folder and how to read it too.
        leave_out: options ("--depth") that the command has in a form of its own.
    """
    parent = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    group = parent.add_argument_group("method")

    def add(name: str, **settings: Any) -> None:
        if name not in leave_out:
            group.add_argument(name, **settings)

    add("--preset", choices=("default", "paper", "reference"), help="starting values (default: default)")
    add("--assoc-depth", type=positive_int, metavar="S", help="number of seed images (10)")
    add("--seed-selection", choices=("random", "first"), help="how the seed images are chosen")
    add(
        "--assoc-pairs",
        choices=("all", "later"),
        help="seed images meet all other images, or later ones only",
    )
    add("--span-filter", action=_OFF_ON, help="drop channels with too few members")
    add("--spread-filter", action=_OFF_ON, help="drop members far from their channel's mean")
    add("--min-channel-length", type=int, metavar="N", help="a channel needs more members than this (3)")
    add("--max-channel-std", type=float, metavar="X", help="members stay within this many deviations (5)")
    add("--position", choices=("auto", "always", "never"), help="position embedding (auto: transpose test)")
    add("--position-weight", type=float, metavar="W", help="weight of the position embedding (5)")
    add("--transpose-threshold", type=float, metavar="T", help="of the transpose test (600)")
    add("--align", choices=("auto", "never"), help="rotate images of a class that fails the transpose test")
    add("--score", choices=("nearest", "mahalanobis", "patchcore"), help="patch score (nearest)")
    add("--distance", choices=("squared_l2", "l2"), help="distance of the nearest score (squared_l2)")
    add("--smoothing-sigma", type=float, metavar="SIGMA", help="of the map's Gaussian filter, pixels (5)")
    add(
        "--threshold-images",
        type=positive_int,
        metavar="N",
        help="training images that set the threshold (64)",
    )
    add("--seed", dest="random_state", type=int, metavar="N", help="of every random choice (0)")

    group = parent.add_argument_group("images and backbone")
    add("--image-size", type=size, metavar="N|HxW", help="network input (224)")
    add("--resize", type=size, metavar="N|HxW", help="resize to this, then crop the centre to --image-size")
    add("--backbone", metavar="NAME", help="wide_resnet50_2, efficientnet_lite2, timm:NAME or FILE.py:FACTORY")
    add("--weights", metavar="official|random|PATH", help="of the backbone (official)")
    add(
        "--depth",
        type=depth,
        metavar="N|PC|reference|LEVELS",
        help="hierarchy: 1 to 13, PC, or level names a,b,c",
    )
    add("--normalisation", choices=("imagenet", "reference"), help="of the input (the backbone's own)")
    add("--neighbourhood", type=positive_int, metavar="N", help="local aggregation; 1 switches it off (3)")
    add("--dim", type=positive_int, metavar="D", help="channels of a descriptor (1024)")
    add("--batch-size", type=positive_int, metavar="N", help="images in one pass of the backbone (8)")
    add("--device", metavar="NAME", help="torch device of the backbone (cpu)")
    add("--backend", metavar="NAME", help="kernels: native, numba, torch (auto); see `inreach backends`")
    if folder:
        parent.add_argument("folder", type=Path, metavar="DIR", help="folder of training images, sorted or not")
        parent.add_argument("--recursive", action="store_true", default=False, help="take sub-folders in too")
        add_skip_bad(parent)
    return parent


def add_skip_bad(parser: argparse.ArgumentParser) -> None:
    """`--skip-bad`."""
    parser.add_argument(
        "--skip-bad",
        action="store_true",
        default=False,
        help="report images that cannot be read, count them, and go on without them",
    )


def add_memory_limit(parser: argparse.ArgumentParser) -> None:
    """`--memory-limit`."""
    parser.add_argument(
        "--memory-limit",
        type=amount,
        metavar="BYTES",
        help="what may be kept in memory, as in 2GB; the rest goes to disk (half of the machine's memory)",
    )


def amount(text: str) -> int:
    """argparse type: `2GB`, `512MiB`, `800000`."""
    from ..errors import ParameterError
    from ..memory import parse_bytes

    try:
        return parse_bytes(text)
    except ParameterError:
        raise argparse.ArgumentTypeError(f"{text!r} is no amount of memory; give bytes, e.g. 2GB or 512MiB") from None


def parameters_of(args: argparse.Namespace) -> dict[str, Any]:
    """The estimator's parameters that the user gave."""
    given = vars(args)
    return {name: given[name] for name in PARAMETER_OPTIONS if name in given}


def positive_int(text: str) -> int:
    """argparse type: a whole number of at least 1."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return value


def size(text: str) -> int | tuple[int, int]:
    """argparse type: `224` or `HEIGHTxWIDTH`."""
    found = re.fullmatch(r"([1-9]\d*)(?:[xX]([1-9]\d*))?", text.strip())
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is no size; give 224 or HEIGHTxWIDTH, e.g. 256x384")
    first, second = found.groups()
    return int(first) if second is None else (int(first), int(second))


def depth(text: str) -> int | str | tuple[str, ...]:
    """argparse type: `13`, `PC`, `reference` or level names `layer1.2,layer2.3`."""
    text = text.strip()
    if text.isdigit():
        return int(text)
    if text.upper() == "PC":
        return "PC"
    if text == "reference":
        return text
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if not names:
        raise argparse.ArgumentTypeError("give a depth: 1 to 13, PC, reference, or level names a,b,c")
    return names
