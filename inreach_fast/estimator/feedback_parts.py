"""Feedback to the parts of a model file and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..array_types import Array
from ..method.feedback import ACCEPT, REJECT, Feedback
from ..method.nominal_model import NominalModel

_SCALARS = ("number", "kind", "image", "size", "region", "peak")


def feedback_to_json(entry: Feedback) -> dict[str, Any]:
    """The scalars of one feedback."""
    values = {name: getattr(entry, name) for name in _SCALARS}
    return {**{n: list(v) if isinstance(v, tuple) else v for n, v in values.items()}, "patches": len(entry.patches)}


def feedback_arrays(feedback: Sequence[Feedback], *, final: bool) -> dict[str, Array]:
    """The arrays of all feedback, at least one; ``final`` leaves out the images."""
    arrays = {
        "feedback.patches": np.concatenate([entry.patches for entry in feedback]),
        "feedback.rows": np.concatenate([entry.rows for entry in feedback]),
    }
    pixels = [entry.pixels for entry in feedback if entry.pixels is not None]
    masks = [np.packbits(entry.mask) for entry in feedback if entry.mask is not None]
    if not final and len(pixels) == len(masks) == len(feedback):
        arrays.update({"feedback.pixels": np.stack(pixels), "feedback.masks": np.stack(masks)})
    return arrays


def feedback_from_parts(
    scalars: Sequence[Mapping[str, Any]], arrays: Mapping[str, Array], nominal: NominalModel, grid: tuple[int, int]
) -> tuple[Feedback, ...]:
    """Inverse of the two. Raises KeyError, TypeError or ValueError if a part is missing or malformed."""
    if not scalars:
        return ()
    ends = np.cumsum([int(entry["patches"]) for entry in scalars])
    patches, rows = np.array(arrays["patches"]), np.array(arrays["rows"])  # copies: they are few
    pixels, masks = arrays.get("pixels"), arrays.get("masks")
    fits = (
        patches.dtype == np.int64
        and rows.dtype == np.float32
        and patches.shape == (ends[-1],)
        and rows.shape == (ends[-1], nominal.patches.shape[1])
        and bool(((patches >= 0) & (patches < grid[0] * grid[1])).all())
        and bool(np.isfinite(rows).all())
        and (pixels is None) == (masks is None)
    )
    if not fits:
        raise ValueError("the feedback's arrays do not fit together")
    found: list[Feedback] = []
    for i, (entry, stop) in enumerate(zip(scalars, ends.tolist(), strict=True)):
        part = slice(stop - int(entry["patches"]), stop)
        number, peak, kind = int(entry["number"]), float(entry["peak"]), str(entry["kind"])
        increasing = number > (found[-1].number if found else 0)
        if kind not in (ACCEPT, REJECT) or not increasing or not 0 < peak < 2 or part.start == part.stop:
            raise ValueError(f"feedback {number}")
        image = None if pixels is None else np.array(pixels[i])
        mask = None
        if image is not None and masks is not None:
            bits = np.unpackbits(np.asarray(masks[i]), count=image.shape[0] * image.shape[1])
            mask = bits.reshape(image.shape[:2]).astype(bool)
        height, width = (int(side) for side in entry["size"])
        region = entry["region"]
        x, y, w, h = (0, 0, 0, 0) if region is None else (int(value) for value in region)
        found.append(
            Feedback(
                number=number,
                kind=kind,
                image=str(entry["image"]),
                size=(height, width),
                region=None if region is None else (x, y, w, h),
                patches=patches[part],
                rows=rows[part],
                peak=peak,
                pixels=image,
                mask=mask,
            )
        )
    return tuple(found)
