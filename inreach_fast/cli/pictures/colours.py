"""A perceptual colour map, by formula.

"inferno" (Smith and van der Walt, matplotlib, CC0): dark is low, bright is high, lightness rises evenly, and
it stays readable in grey and for the colour-blind. Here it is three polynomials of the seventh degree, least
squares over its 256 colours (largest difference 6 of 255): no table to carry, no plotting library needed.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ...array_types import UInt8Array

# Ascending powers of t in [0, 1]; one row each for red, green, blue in [0, 1].
_INFERNO = (
    (0.00029, 0.10145, 11.67787, -42.04922, 78.09552, -72.64073, 26.07045, -0.27938),
    (-0.01123, 1.32659, -14.37827, 75.81556, -194.45428, 264.83412, -180.08695, 47.96137),
    (0.01912, 0.79274, 29.36525, -210.60842, 622.11890, -942.39117, 711.11453, -209.78005),
)


def inferno(values: npt.ArrayLike) -> UInt8Array:
    """Colours of values.

    Args:
        values: any shape, 0 (black) to 1 (pale yellow); clipped outside; NaN gets a neutral grey.

    Returns:
        uint8, the shape of `values` and a last axis of 3 (red, green, blue).
    """
    t = np.asarray(values, dtype=np.float64)
    missing = np.isnan(t)
    t = np.clip(np.where(missing, 0.0, t), 0.0, 1.0)
    rgb = np.stack([np.polynomial.polynomial.polyval(t, np.array(row)) for row in _INFERNO], axis=-1)
    colours = np.rint(np.clip(rgb, 0.0, 1.0) * 255).astype(np.uint8)
    colours[missing] = (128, 128, 128)
    return np.asarray(colours)
