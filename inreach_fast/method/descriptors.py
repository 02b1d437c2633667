"""From network inputs to patch descriptors (paper, section 3.1; ALGORITHM section 3), and where they stay.

A fit keeps one buffer of descriptors and nothing else of that size: images are described into it, and once
the nominal patches are known they are moved to its front and the rest is given back to the system.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import kernels
from ..array_types import FloatArray, IndexArray, UInt8Array
from ..errors import MixedSizesError, NonFiniteError, ParameterError
from ..kernels.bank import as_float32

if TYPE_CHECKING:
    from ..backbones import Backbone


_CHUNK_ROWS = 4096


class DescriptorBuffer:
    """(rows, D) float32 that can give memory back: pages are taken when written, and freed by `compact`.

    Args:
        rows: capacity. dim: values in a row.
    """

    def __init__(self, rows: int, dim: int) -> None:
        size = max(rows * dim * 4, mmap.PAGESIZE)
        if hasattr(mmap, "MAP_PRIVATE"):
            # Private, not Python's default of shared memory: only private pages can be dropped.
            self._map = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            if hasattr(mmap, "MADV_HUGEPAGE"):
                with suppress(OSError):  # a kernel without huge pages: slower, not wrong
                    self._map.madvise(mmap.MADV_HUGEPAGE)
        else:
            self._map = mmap.mmap(-1, size)
        self._array: FloatArray = np.frombuffer(self._map, dtype=np.float32, count=rows * dim).reshape(rows, dim)

    @property
    def array(self) -> FloatArray:
        """The rows, float32 (rows, D)."""
        return self._array

    def compact(self, rows: IndexArray) -> FloatArray:
        """Keeps the given rows alone, moved to the front; every other view of the buffer becomes meaningless.

        Args:
            rows: int64 (n,), ascending.

        Returns:
            float32 (n, D), the buffer's front; the memory behind it is the system's again.
        """
        array = self._array
        for start in range(0, len(rows), _CHUNK_ROWS):
            part = rows[start : start + _CHUNK_ROWS]
            # Row rows[j] >= j, so that a chunk's sources lie at or behind everything written before it.
            array[start : start + len(part)] = array[part]
        used = -(-len(rows) * array.shape[1] * 4 // mmap.PAGESIZE) * mmap.PAGESIZE
        if hasattr(mmap, "MADV_DONTNEED") and used < len(self._map):
            self._map.madvise(mmap.MADV_DONTNEED, used, len(self._map) - used)
        self._array = array[: len(rows)]
        return self._array


def describe_images(
    batch: UInt8Array,
    backbone: Backbone,
    *,
    dim: int,
    neighbourhood: int,
    backend: str,
    precision: str = "float32",
) -> tuple[FloatArray, tuple[int, int]]:
    """Descriptors of network inputs, without position channels.

    Args:
        batch: uint8 (B, H, W, 3) RGB.
        backbone: the network; its first level's grid is the patches' grid.
        dim, neighbourhood, backend: as in `Parameters`. precision: of the network's products.

    Returns:
        float32 (B, P, dim), and the grid (h, w) with h * w = P. Each image passes through the network by
        itself: convolution libraries round differently for different batch sizes, and an image's result must
        not depend on its company.
    """
    out: FloatArray | None = None
    grid = (0, 0)
    for i in range(len(batch)):
        rows, grid = describe_image(
            batch[i], backbone, dim=dim, neighbourhood=neighbourhood, backend=backend, precision=precision
        )
        if out is None:
            out = np.empty((len(batch), grid[0] * grid[1], dim), dtype=np.float32)
        out[i] = in_memory(rows)
    assert out is not None, "describe_images needs at least one image"
    return out, grid


def describe_image(
    image: UInt8Array,
    backbone: Backbone,
    *,
    dim: int,
    neighbourhood: int,
    backend: str,
    precision: str = "float32",
) -> tuple[Any, tuple[int, int]]:
    """Descriptors of one network input, uint8 (H, W, 3), and the grid; see `describe_images`.

    Returns:
        float32 (P, dim): a tensor on the network's device where that is no CPU and the backend works there, else an
        array in the CPU's memory.
    """
    one = image[None]
    levels = backbone.extract(one) if precision == "float32" else backbone.extract(one, precision=precision)
    grid = (int(levels[0].shape[-2]), int(levels[0].shape[-1]))
    if levels[0].device.type != "cpu" and not (backend in ("auto", "torch") or kernels.is_gpu_name(backend)):
        levels = [level.cpu() for level in levels]  # a backend of the CPU for a network on a GPU
    rows = kernels.describe(levels, grid=grid, dim=dim, neighbourhood=neighbourhood, backend=backend)
    return rows[0], grid


def in_memory(rows: Any, numbers: IndexArray | slice = slice(None)) -> FloatArray:
    """``rows[numbers]`` in the CPU's memory; rows on a GPU are picked there, so that no others cross over."""
    if isinstance(rows, np.ndarray):
        return rows[numbers]
    import torch

    chosen = numbers if isinstance(numbers, slice) else torch.from_numpy(numbers).to(rows.device)
    found: FloatArray = rows[chosen].cpu().numpy()
    return found


def position_channels(grid: tuple[int, int], weight: float) -> FloatArray:
    """The position channels of each patch (supplement D), float32 (P, 2): weight * row/h, weight * col/w."""
    h, w = grid
    row, col = np.divmod(np.arange(h * w), w)
    return np.stack([weight * row / h, weight * col / w], axis=1).astype(np.float32)


def append_positions(rows: Any, channels: FloatArray | None) -> Any:
    """(P, dim) descriptors with (P, 2) position channels behind them, or as they are without; where they are."""
    if channels is None:
        return rows
    if isinstance(rows, np.ndarray):
        return np.concatenate([rows, channels], axis=1)
    import torch

    return torch.cat([rows, torch.from_numpy(channels).to(rows.device)], dim=1)


def all_finite(rows: Any) -> bool:
    """Whether descriptors hold neither NaN nor infinity; looked at where they are."""
    return bool(np.isfinite(rows).all() if isinstance(rows, np.ndarray) else rows.isfinite().all())


def check_descriptors(x: Any, name: str = "x") -> FloatArray:
    """(N, P, D) descriptors as float32 in C order, without a copy where they are that already.

    Raises:
        MixedSizesError: a list of arrays of different shapes. ParameterError: other shapes or dtypes.
        NonFiniteError: NaN or infinity; the message names image and patch.
    """
    if isinstance(x, (list, tuple)):
        shapes = {np.shape(item) for item in x}
        if len(shapes) > 1:
            raise MixedSizesError(
                f"{name}: the images' descriptors differ in shape ({', '.join(map(str, sorted(shapes)))}); "
                "bring all images to one size and grid"
            )
    array = as_float32(x, name, ndim=3)
    if 0 in array.shape:
        raise MixedSizesError(f"{name}: shape {array.shape} holds no descriptor")
    for i, image in enumerate(array):
        finite = np.isfinite(image).all(axis=1)
        if not finite.all():
            raise NonFiniteError(
                f"{name}: image {i}, patch {int(np.argmin(finite))} holds NaN or infinity; leave that "
                "image out or repair what made it"
            )
    return array


def check_grid(grid: Sequence[int], patches: int) -> tuple[int, int]:
    """A caller's grid as (h, w).

    Raises:
        ParameterError: no two numbers, or not those of so many ``patches``.
    """
    try:
        h, w = (int(n) for n in grid)
    except (TypeError, ValueError) as error:
        raise ParameterError(f"grid: expected (h, w), got {grid!r}") from error
    if h < 1 or w < 1 or h * w != patches:
        raise ParameterError(f"grid: {h} x {w} is not the {patches} patches of an image")
    return h, w


def described_rows(
    describe: Callable[[UInt8Array], Any], pixels: UInt8Array, positions: FloatArray | None, name: str
) -> Any:
    """Descriptors of one network input, (P, D) float32, position channels included, where ``describe`` leaves them.

    Raises:
        NonFiniteError: the network's features; names the image.
    """
    rows = append_positions(describe(pixels[None])[0], positions)
    if not all_finite(rows):
        raise bad_features(name)
    return rows


def bad_features(name: str) -> NonFiniteError:
    """The error for an image of which the network makes no numbers."""
    return NonFiniteError(
        f"images: the backbone's features of {name} hold NaN or infinity; check its weights and normalisation"
    )
