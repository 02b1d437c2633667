"""The array types of the package's signatures, by what they hold; shapes are said where they are used."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]
"""Any dtype."""
FloatArray: TypeAlias = npt.NDArray[np.float32]
"""Descriptors, distances, scores, maps."""
DoubleArray: TypeAlias = npt.NDArray[np.float64]
"""Sums, and what is decided exactly."""
IndexArray: TypeAlias = npt.NDArray[np.int64]
"""Row, patch, image and channel numbers."""
Int32Array: TypeAlias = npt.NDArray[np.int32]
"""Patch numbers where there are many."""
UInt8Array: TypeAlias = npt.NDArray[np.uint8]
"""Images, codes, digests."""
BoolArray: TypeAlias = npt.NDArray[np.bool_]
"""Masks."""
