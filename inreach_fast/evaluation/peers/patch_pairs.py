"""The pairs of patches that PatchSVDD learns from (sections 3.2 and 3.3), drawn from generators that are given."""

from __future__ import annotations

from typing import Final, TypeAlias

import numpy as np

from ...array_types import Array, FloatArray

NOISE: Final = 0.02
"""Standard deviation of the change of a patch's colour, and of each of its values, in units of 255 grey levels."""
DIRECTIONS: Final = tuple((y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0))
"""Where the second patch of a pair lies: class number to (down, right)."""

Corner: TypeAlias = tuple[int, int]


def adjacent_pair(size: tuple[int, int], patch: int, rng: np.random.Generator) -> tuple[Corner, Corner, int]:
    """Corners (y, x) of two neighbouring patches in an image of ``size``, and the direction's number, 0 to 7.

    The second is 3/4 to 1 of a patch away along each axis of the direction, and is moved into the image where it would
    leave it, as in the authors' program.
    """
    first = _corner(size, patch, rng)
    direction = int(rng.integers(len(DIRECTIONS)))
    distance = 3 * patch // 4 + rng.integers(0, max(1, patch // 4), size=2)
    moved = np.multiply(DIRECTIONS[direction], distance)
    return first, _inside(first, moved, size, patch), direction


def close_pair(size: tuple[int, int], patch: int, rng: np.random.Generator) -> tuple[Corner, Corner]:
    """Corners (y, x) of two patches that are up to 1/32 of a patch apart along each axis."""
    first = _corner(size, patch, rng)
    most = max(1, patch // 32)
    side = 2 * most + 1
    place = int(rng.integers(side * side - 1))
    place += place >= side * side // 2  # the middle, where both would be the same patch, is left out
    return first, _inside(first, np.subtract(divmod(place, side), most), size, patch)


def noisy(patch: FloatArray, rng: np.random.Generator) -> FloatArray:
    """A patch (h, w, 3), in another colour and with noise, so that positions cannot be told from either."""
    shift, noise = rng.normal(0, NOISE, size=3), rng.normal(0, NOISE, size=patch.shape)
    return np.asarray(patch + shift + noise, dtype=np.float32)


def _corner(size: tuple[int, int], patch: int, rng: np.random.Generator) -> Corner:
    return int(rng.integers(0, size[0] - patch + 1)), int(rng.integers(0, size[1] - patch + 1))


def _inside(corner: Corner, moved: Array, size: tuple[int, int], patch: int) -> Corner:
    y, x = np.clip(np.add(corner, moved), 0, np.subtract(size, patch)).tolist()
    return y, x
