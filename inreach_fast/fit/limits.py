"""What is checked before a fit begins: enough images, different ones, and enough memory."""

from __future__ import annotations

from typing import Final

from ..array_types import UInt8Array
from ..errors import DegenerateDataError, MemoryLimitError, TooFewImagesError
from ..system.memory import format_bytes
from .context import FitContext

NUMBERS_OF_MEMBER: Final = 100
"""Bytes that a member takes in memory at most besides its row, whatever the limit: its image, patch and channel, and
what the filters and the index compute of them."""


def check_enough(count: int) -> None:
    """Raises TooFewImagesError for fewer than two images."""
    if count < 2:
        raise TooFewImagesError(
            f"images: {count} usable image; InReaCh compares images with each other and needs at least 2 "
            "(and more than min_channel_length to form a channel)"
        )


def check_different(digests: UInt8Array, argument: str, what: str) -> None:
    """Raises DegenerateDataError if all images are the same."""
    if (digests == digests[0]).all():
        raise DegenerateDataError(
            f"{argument}: all {len(digests)} {what} are identical, so that nothing can be learned "
            "from their differences; give different images"
        )


def check_limit(context: FitContext, seeds: int, patches: int, dim: int, n_images: int) -> None:
    """Raises MemoryLimitError if the caller has set a limit that is too small.

    The least is the members' numbers and a part of the filters' sums. If every patch were a member, their numbers would
    take 24 bytes each; the sums can be computed in thirty-two parts.
    """
    limit = context.workspace.budget.limit
    least = 24 * patches * n_images + seeds * patches * dim * 8 * 8 // (3 * 32) + 4 * patches * dim
    if context.explicit_limit and limit < least:
        raise MemoryLimitError(
            f"memory_limit: {format_bytes(limit)} is too little for {n_images} images of {patches} patches "
            f"with {seeds} seed images; give at least {format_bytes(least)} ({least}), or lower assoc_depth"
        )


def check_limit_for_images(context: FitContext, n_images: int) -> None:
    """`check_limit` before the first image is described: position channels may be added to its descriptors."""
    if context.explicit_limit:
        p = context.parameters
        _, h, w = context.describer.backbone.level_shapes(*p.image_size)[0]
        tiles = 1 if p.tile is None else p.tile[0] * p.tile[1]
        check_limit(context, context.seed_count(n_images), tiles * h * w, p.dim + 2, n_images)
