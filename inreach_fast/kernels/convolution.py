"""3x3 convolutions with stride 1 by Winograd's algorithm (csrc/cpu/winograd), in float32 on the CPU."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

from ..array_types import FloatArray
from ..errors import BackendError, MixedSizesError, ParameterError
from ..system.threads import check_threads, get_num_threads
from .bank import as_float32

try:
    from .. import _core
except ImportError:
    _core = None  # type: ignore[assignment]

_ACTIVATIONS = ("", "relu", "relu6")
_TILES = (2, 4)


def winograd_tile(height: int, width: int, inputs: int, outputs: int) -> int:
    """Side of the tiles, 2 or 4, with which `Convolution3x3` is fast for outputs of height x width; 0: it is not.

    It is not without the compiled extension and without vector instructions, for few channels, and for small maps.
    """
    if _core is None or _core.isa() == "scalar":
        return 0
    return _core.winograd_tile(height, width, inputs, outputs)


class Convolution3x3:
    """A 3x3 convolution with stride 1, and the bias, sum and activation that follow it.

    A tile of m x m outputs is computed by (m + 2)^2 multiplications for each pair of channels in place of 9 m^2. The
    bits are the same for every instruction set, number of threads and batch. Features differ from those of a direct
    convolution by some 1e-6 of the greatest one. What is not finite may make any output of its tile NaN or infinite, up
    to 3 pixels beyond those that a direct convolution would reach.

    Args:
        weight: (outputs, inputs, 3, 3) float32. Transformed in float64 and kept, (m + 2)^2 / 9 times as large.
        bias: (outputs,) float32.
        tile: m, 2 or 4.

    Raises:
        BackendError: there is no compiled extension. ParameterError: a wrong dtype, number of dimensions or tile.
        MixedSizesError: shapes that do not fit.
    """

    def __init__(self, weight: Any, bias: Any, *, tile: int = 2) -> None:
        if _core is None:
            raise BackendError("Convolution3x3: needs inreach_fast._core, which is missing; install a wheel of it")
        weight, bias = as_float32(weight, "weight", ndim=4), as_float32(bias, "bias", ndim=1)
        if weight.shape[2:] != (3, 3) or 0 in weight.shape:
            raise MixedSizesError(f"weight: expected (outputs, inputs, 3, 3), none of them 0, got {weight.shape}")
        if len(bias) != len(weight):
            raise MixedSizesError(f"bias: expected ({len(weight)},) for {len(weight)} outputs, got {bias.shape}")
        if tile not in _TILES:
            raise ParameterError(f"tile: expected 2 or 4, got {tile!r}")
        self.outputs, self.inputs = weight.shape[:2]
        self._native = _core.Convolution(weight, bias, tile)

    def __call__(
        self,
        images: Any,
        *,
        padding: Sequence[int] = (1, 1),
        other: Any = None,
        activation: str = "",
        threads: int | None = None,
        team: int = 0,
    ) -> FloatArray:
        """``activation(convolution(images) + bias + other)``.

        Args:
            images: (n, height, width, inputs) float32.
            padding: rows of zeros above and below, columns of zeros left and right.
            other: None, or float32 of the result's shape.
            activation: "", "relu" or "relu6".
            threads: number of threads; None: as `set_num_threads` says.
            team: address of the function that runs work on them (`inreach_fast.system.threads.torch_team`); 0: the
                engine's own do it.

        Returns:
            float32 (n, height + 2 * padding[0] - 2, width + 2 * padding[1] - 2, outputs).

        Raises:
            ParameterError: a wrong dtype, number of dimensions, padding, activation or number of threads.
            MixedSizesError: shapes that do not fit.
        """
        images = as_float32(images, "images", ndim=4)
        rows, columns = _checked_padding(padding)
        count, height, width, inputs = images.shape
        if inputs != self.inputs:
            raise MixedSizesError(f"images: expected {self.inputs} channels in the last dimension, got {images.shape}")
        shape = (count, height + 2 * rows - 2, width + 2 * columns - 2, self.outputs)
        if 0 in (height, width) or shape[1] < 1 or shape[2] < 1:
            raise MixedSizesError(f"images: smaller than the 3x3 weights, with padding {rows, columns}: {images.shape}")
        if other is not None:
            other = as_float32(other, "other", ndim=4)
            if other.shape != shape:
                raise MixedSizesError(f"other: expected the result's shape {shape}, got {other.shape}")
        if activation not in _ACTIVATIONS:
            raise ParameterError(f"activation: expected one of {_ACTIVATIONS}, got {activation!r}")
        threads = get_num_threads() if threads is None else check_threads("threads", threads)
        return self._native(images, rows, columns, other, _ACTIVATIONS.index(activation), threads, team)


def _checked_padding(padding: Sequence[int]) -> tuple[int, int]:
    try:
        rows, columns = map(operator.index, padding)
    except (TypeError, ValueError):
        rows = columns = -1
    if not (0 <= rows <= 1024 and 0 <= columns <= 1024):
        raise ParameterError(f"padding: expected two whole numbers from 0 to 1024, got {padding!r}")
    return rows, columns
