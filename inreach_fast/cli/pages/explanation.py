"""The page of one inspected image: its worst regions, and the training images that are nearest to them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ...array_types import UInt8Array
from ...predict.explanation import Box, Explanation, Region, TrainingPatch
from ..console import format_number
from ..pictures import Inspected
from .crops import CROP_SIDE, crop, jpeg_uri, numbered, outlined, sized
from .html import Html, fill, joined, page

PictureOf = Callable[[int], UInt8Array | None]
"""Returns a training image as it was given, uint8 (H, W, 3), by its number; None if it is not at hand."""


def no_picture(image: int) -> None:
    """The training images are not at hand; their thumbnails may be."""


def explanation_page(inspected: Inspected, explanation: Explanation) -> str:
    """The page of an image, its map and its explanation."""
    boxes = [region.box for region in explanation.regions]
    shown = sized(inspected.image)
    _, _, overlay = inspected.panels((shown.shape[0], shown.shape[1]), 2)
    verdict, kind = verdict_words(inspected.is_anomalous)
    share = explanation.quantile
    body = fill(
        "explanation.html",
        verdict=verdict,
        kind=kind,
        score=format_number(inspected.score),
        threshold=format_number(inspected.threshold),
        ratio=ratio_words(inspected.score, inspected.threshold),
        quantile="-" if share is None else f"{share:.0%}",
        name=inspected.name,
        numbered=jpeg_uri(numbered(inspected.image, boxes)),
        overlay=jpeg_uri(overlay),
        width=shown.shape[1],
        height=shown.shape[0],
        found=_found_words(explanation),
        regions=joined(_region(inspected.image, number, r) for number, r in enumerate(explanation.regions, start=1)),
    )
    subtitle = f"Why {inspected.name} was scored so"
    return page(f"{verdict}: {short_name(inspected.name)}", subtitle, body)


def verdict_words(is_anomalous: bool) -> tuple[str, str]:
    """A verdict in a word, and the class of its colour."""
    return ("anomalous", "bad") if is_anomalous else ("nominal", "good")


def ratio_words(score: float, threshold: float) -> str:
    """A score in thresholds."""
    return f"{score / threshold:.2f} x threshold" if threshold > 0 else ""


def short_name(name: str) -> str:
    """The last two parts of a path: file names alone often repeat."""
    return "/".join(Path(name).parts[-2:]) or name


def box_words(box: Box) -> str:
    """Where a box is, as a person reads it: from the first row and column to the last."""
    return f"rows {box.top} to {box.bottom - 1}, columns {box.left} to {box.right - 1}"


def distance_words(region: Region) -> str:
    """How far a region's worst patch is from what is nominal, and what is usual there."""
    words = f"The patch scores {format_number(region.distance)}"
    if region.feedback:
        return f"{words} because of feedback {region.feedback} (`inreach feedback` lists it)."
    if region.confirmation is not None:
        words += f"; other images confirm the nearest one to {format_number(region.confirmation)}"
    if region.usual is None or region.quantile is None:
        return words + "."
    usual = format_number(region.usual)
    return f"{words}. Usual there is {usual}; {region.quantile:.0%} of the training patches there have no more."


def patch_figures(name: str, image: UInt8Array, region: Region, picture_of: PictureOf = no_picture) -> Html:
    """The worst patch of a region beside the nearest nominal patch and the first one that confirms that."""
    own = crop(image, region.patch_box)
    words = f"The worst patch: {box_words(region.patch_box)}"
    figures = [_crop(own, f"Part of {name} around its worst patch, which is outlined", words)]
    if region.nearest is not None:
        figures.append(_training(region.nearest, "The nearest nominal patch", picture_of))
    if region.confirmed_by:
        others = len(region.confirmed_by) - 1
        more = "" if not others else f" (and {others} more image{'s' if others > 1 else ''})"
        figures.append(_training(region.confirmed_by[0], f"It is confirmed by{more}", picture_of))
    return joined(figures)


def _training(patch: TrainingPatch, what: str, picture_of: PictureOf) -> Html:
    frame = "" if patch.size_known else " of the network's input"
    name = short_name(patch.name)
    words = f"{what}: {name}, {box_words(patch.box)}{frame}"
    alternative = f"Part of training image {name} around the patch, which is outlined"
    image = picture_of(patch.image) if patch.size_known else None
    if image is not None and image.shape[:2] == patch.size:
        return _crop(crop(image, patch.box), alternative, words)
    thumbnail = patch.thumbnail
    if thumbnail is None:
        return fill("no_picture.html", words=words)
    (height, width), (top, left, bottom, right) = thumbnail.shape[:2], patch.box_in_thumbnail
    box = (top * height, left * width, bottom * height, right * width)
    alternative = f"Training image {name}, small, with the patch outlined"
    return _crop(outlined(thumbnail, box, CROP_SIDE), alternative, words)


def _crop(picture: UInt8Array, alternative: str, words: str) -> Html:
    height, width = picture.shape[:2]
    return fill("crop.html", source=jpeg_uri(picture), alt=alternative, words=words, width=width, height=height)


def _found_words(explanation: Explanation) -> str:
    shown = len(explanation.regions)
    if not explanation.regions[0].is_above:
        return "No part of the map is above the threshold. This is the part that comes nearest to it."
    if shown < explanation.found:
        return f"{explanation.found} regions are above the threshold; these are the {shown} worst."
    return f"{shown} region{'s are' if shown > 1 else ' is'} above the threshold."


def _region(image: UInt8Array, number: int, region: Region) -> Html:
    row, column = region.centroid
    return fill(
        "region.html",
        number=number,
        score=format_number(region.score),
        box=box_words(region.box),
        area=f"{region.area:,.0f}",
        centroid=f"row {row:.0f}, column {column:.0f}",
        distance=distance_words(region),
        figures=patch_figures("the image", image, region),
    )
