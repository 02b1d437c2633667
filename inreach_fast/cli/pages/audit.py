"""The page of an audit: the training images, the most suspect first, with a list to act on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np

from ...array_types import DoubleArray, UInt8Array
from ...errors import ImageError
from ...estimator import InReaCh
from ...images.reading import read_image
from ...method.scoring import frame_of
from ...predict.explanation import Explanation
from ...storage.thumbnails import Thumbnails
from ..console import format_number
from ..pictures import Inspected
from .charts import histogram
from .crops import file_uri, grid_uri, jpeg_uri, sized
from .explanation import PictureOf, box_words, distance_words, patch_figures, ratio_words, short_name, verdict_words
from .html import Html, escape, fill, joined, page

MOST_ROWS: Final = 2000
"""Images in the list to act on, at most."""
MOST_PICTURES: Final = 500
"""Images of that list that have a thumbnail, at most."""


@dataclass(frozen=True)
class AuditEntry:
    """A training image that the page shows in detail: its row of the ranking, and the finished part of the page."""

    row: Mapping[str, Any]
    part: Html


def relative_name(folder: Path, file: str) -> str:
    """The name of a folder's image, from the folder on; manifests have it."""
    path = Path(file)
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else path.as_posix()


def audit_entry(
    folder: Path, row: Mapping[str, Any], inspected: Inspected, explanation: Explanation, picture_of: PictureOf
) -> AuditEntry:
    """The detailed part of the page for one image."""
    name, region = relative_name(folder, row["file"]), explanation.regions[0]
    shown = sized(inspected.image)
    size = (shown.shape[0], shown.shape[1])
    _, _, overlay = inspected.panels(size, 2)
    verdict, kind = verdict_words(inspected.is_anomalous)
    part = fill(
        "audit_entry.html",
        rank=row["rank"],
        name=name,
        verdict=verdict,
        kind=kind,
        score=format_number(inspected.score),
        ratio=ratio_words(inspected.score, inspected.threshold),
        where=f"Its worst region: {box_words(region.box)}.",
        distance=distance_words(region),
        image=jpeg_uri(shown),
        overlay=jpeg_uri(overlay),
        width=size[1],
        height=size[0],
        figures=patch_figures(name, inspected.image, region, picture_of),
    )
    return AuditEntry(row, part)


def training_pictures(model: InReaCh) -> PictureOf:
    """Reads the training images by number, a few of them kept; None for one that is not a file, or cannot be read."""

    @lru_cache(maxsize=8)
    def picture_of(number: int) -> UInt8Array | None:
        try:
            return read_image(model.image_names_[number], model.pixel_rule)
        except ImageError:
            return None

    return picture_of


def audit_page(model: InReaCh, folder: Path, rows: Sequence[Mapping[str, Any]], entries: Sequence[AuditEntry]) -> str:
    """The page of a whole audit.

    Args:
        folder: of the images. rows: the ranking. entries: of its first images.
    """
    above = sum(row["is_anomalous"] for row in rows)
    scores, threshold = [row["score"] for row in rows], float(model.threshold_)
    listed = rows[: max(MOST_ROWS, len(entries))]
    head, shares = confirmed_shares(model)
    confirmed = coverage(model)
    detailed = {entry.row["image"] for entry in entries}
    warnings = model.report_.counts.get("warnings", ())
    body = fill(
        "audit.html",
        folder=str(folder),
        facts=facts_of(
            {
                "images": (len(rows), ""),
                "above the threshold": (above, f"{above / len(rows):.1%} of them"),
                "threshold": (format_number(threshold), ""),
                **_estimates(model),
            }
        ),
        warnings=warning_list(warnings),
        histogram=histogram(scores, threshold, name="scores", title="Scores of the training images"),
        coverage=grid_uri(confirmed),
        coverage_words=_coverage_words(model, confirmed),
        share_head=head,
        rows=joined(_row(folder, row, model, shares, detailed, i) for i, row in enumerate(listed)),
        left_out=_left_out(len(rows) - len(listed)),
        count=len(entries),
        entries=joined(entry.part for entry in entries),
    )
    subtitle = f"{folder}: {len(rows)} training images, ranked by how little of them the others confirm"
    return page(f"Audit of {short_name(str(folder))}", subtitle, body, scripts=["manifest.js"])


def facts_of(facts: Mapping[str, tuple[Any, str]]) -> Html:
    """Named values, each with a remark."""
    return joined(fill("fact.html", name=name, value=value, remark=r) for name, (value, r) in facts.items())


def warning_list(warnings: Iterable[str]) -> Html:
    """The warnings of a fit; nothing where there are none."""
    items = joined(fill("item.html", words=words) for words in warnings)
    return fill("warnings.html", items=items) if items else Html("")


def confirmed_shares(model: InReaCh) -> tuple[str, Callable[[int], str]]:
    """A column of the list: its head, and for an image's number what share of its patches nobody confirms."""
    nominal, patches, originals = model.nominal_, frame_of(model.parameters, model.grid_).count, model.originals_
    counts = nominal.counts_by_image(model.n_images_)
    if nominal.confirmation is None:
        return "patches rejected", lambda i: f"{1 - counts[originals[i]] / patches:.1%}"
    bare = np.bincount(nominal.image_index[~_confirmed(model)], minlength=model.n_images_)

    def share(image: int) -> str:
        first = originals[image]
        return f"{bare[first] / counts[first]:.1%}" if counts[first] else "-"  # none of its patches are in the bank

    return "patches unconfirmed", share


def coverage(model: InReaCh) -> DoubleArray:
    """For each place of the grid the share of the images whose patch there is confirmed by others, (h, w).

    NaN outside of the region of interest.
    """
    nominal, frame = model.nominal_, frame_of(model.parameters, model.grid_)
    kept = np.ones(len(nominal), dtype=bool) if nominal.confirmation is None else _confirmed(model)
    images = len(np.unique(model.originals_)) if nominal.confirmation is None else nominal.n_images
    counts = np.bincount(nominal.patch_index[kept], minlength=int(np.prod(frame.grid)))
    return frame.on_grid(counts[frame.places(np.arange(frame.count))] / images)


def _confirmed(model: InReaCh) -> Any:
    """Which nominal patches another image confirms within the threshold."""
    distance = model.nominal_.confirmation
    assert distance is not None
    unit = distance if model.parameters.distance == "squared_l2" else np.sqrt(distance)
    return unit <= model.threshold_


def _coverage_words(model: InReaCh, confirmed: DoubleArray) -> str:
    how = "joined a channel" if model.nominal_.confirmation is None else "is confirmed by another within the threshold"
    least, middle = np.nanmin(confirmed), np.nanmedian(confirmed)
    h, w = confirmed.shape
    grey = "; grey: outside of the region of interest" if np.isnan(confirmed).any() else ""
    return (
        f"{h} x {w} places of an image. Bright: in all images the patch there {how}; black: in none{grey}. The least "
        f"is {least:.0%} of the images, the median {middle:.0%}."
    )


def _estimates(model: InReaCh) -> dict[str, tuple[str, str]]:
    share, rate = (model.report_.get(name) for name in ("anomalous_share", "expected_false_alarms"))
    facts = {}
    if share is not None:
        count, low, high = (round(share[name] * model.n_images_) for name in ("estimate", "low", "high"))
        interval = f"{share['level']:.0%} interval: {low} to {high} ({share['low']:.1%} to {share['high']:.1%})"
        facts["bad images, estimated"] = (f"{count} ({share['estimate']:.1%})", interval)
    if rate is not None:
        facts["false alarms to expect"] = (f"{rate:.1%}", "of good new images")
    return facts


def _row(
    folder: Path, row: Mapping[str, Any], model: InReaCh, shares: Callable[[int], str], detailed: set[int], i: int
) -> Html:
    image, name = row["image"], relative_name(folder, row["file"])
    verdict, kind = verdict_words(row["is_anomalous"])
    return fill(
        "audit_row.html",
        rank=row["rank"],
        name=fill("link.html", target=f"#image-{row['rank']}", words=name) if image in detailed else escape(name),
        file=name,
        picture=_thumbnail(model.thumbnails_ if i < MOST_PICTURES else None, image),
        score=format_number(row["score"]),
        exact=repr(row["score"]),
        ratio=ratio_words(row["score"], row["threshold"]),
        verdict=verdict,
        kind=kind,
        share=shares(image),
        above=Html(" data-above checked" if row["is_anomalous"] else ""),
    )


def _thumbnail(thumbnails: Thumbnails | None, image: int) -> Html:
    file = None if thumbnails is None else thumbnails.file(image)
    # The name beside it says which image it is.
    return Html("") if file is None else fill("thumbnail.html", source=file_uri(file))


def _left_out(count: int) -> str:
    return f"{count} images that score less are left out; --csv lists all." if count > 0 else ""
