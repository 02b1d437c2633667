"""From network inputs to patch descriptors (paper, section 3.1; ALGORITHM section 3)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import kernels
from ..array_types import FloatArray, IndexArray, UInt8Array
from ..errors import MixedSizesError, NonFiniteError, ParameterError
from ..images.preprocess import roi_cells
from ..images.tiles import Tiles
from ..kernels.bank import as_float32
from ..parameters import UNFOLDED, Parameters
from .projection import Projection

if TYPE_CHECKING:
    from ..backbones import Backbone


# Input pixels that a patch should cover at least, each way (parameter ``grid_stride`` of None).
_PATCH_PIXELS = 8


class Describer:
    """Network inputs to patch descriptors, without position channels.

    A subclass that takes descriptors from elsewhere (a cache) overrides `__call__` and sets ``direct`` to False.

    Args:
        backbone: returns the network; called whenever it is needed.
        parameters: returns the `Parameters` in use: ``image_size``, ``dim``, ``neighbourhood``, backend.

    Attributes:
        direct: whether descriptors come straight from the network and the kernels, with no cache in between.
    """

    direct = True

    def __init__(self, backbone: Callable[[], Backbone], parameters: Callable[[], Parameters]) -> None:
        self._backbone, self._parameters = backbone, parameters
        self._backend_of: tuple[Parameters | None, str] = None, ""

    @property
    def backbone(self) -> Backbone:
        """The network; its first level's grid is the grid of the patches."""
        return self._backbone()

    @property
    def runtime(self) -> str:
        """What computes the network; an object of the caller's that is no `Backbone` has no other than its own."""
        return str(getattr(self.backbone, "runtime", UNFOLDED))

    @property
    def parameters(self) -> Parameters:
        """The parameters in use."""
        return self._parameters()

    @property
    def _backend(self) -> str:
        """The kernel backend, chosen once for the parameters in use."""
        p = self.parameters
        if self._backend_of[0] is not p:
            self._backend_of = p, kernels.backend_of(p)
        return self._backend_of[1]

    def __call__(self, batch: UInt8Array, precision: str = "float32") -> FloatArray:
        """Descriptors of network inputs, uint8 (B, H, W, 3) RGB: float32 (B, P, dim) in the CPU's memory.

        Each image passes through the network alone: convolution libraries round differently for different batch
        sizes, and an image's result must not depend on the other images of its batch.

        Args:
            batch: at least one image.
            precision: of the network's products: "float32", "float16" or "bfloat16".
        """
        if len(batch) == 1:  # without a copy
            return in_memory(self._rows(batch[0], precision))[None]
        return np.stack([in_memory(self._rows(image, precision)) for image in batch])

    def one(self, image: UInt8Array) -> Any:
        """Descriptors of one network input, uint8 (H, W, 3): float32 (P, dim).

        A tensor on the GPU where the backend is a GPU's; otherwise an array in the CPU's memory.
        """
        if not self.direct:
            return self(image[None])[0]
        rows = self._rows(image, "float32")
        return rows if kernels.is_gpu_name(self._backend) else in_memory(rows)

    def _rows(self, image: UInt8Array, precision: str) -> Any:
        p = self.parameters
        if p.tile is None:
            return self._rows_of_tile(image, precision)
        tiles, of_tile = Tiles(p.image_size, p.tile, p.tile_overlap), self._grid_of_tile()
        return tiles.described(image, lambda part: in_memory(self._rows_of_tile(part, precision)), of_tile)

    def _grid_of_tile(self) -> tuple[int, int]:
        p = self.parameters
        return grid_of(self.backbone.level_shapes(*p.image_size)[0], p)

    def _rows_of_tile(self, image: UInt8Array, precision: str) -> Any:
        p, backbone = self.parameters, self.backbone
        one, backend = image[None], self._backend
        levels = backbone.extract(one) if precision == "float32" else backbone.extract(one, precision=precision)
        if levels[0].device.type != "cpu" and not (backend in ("auto", "torch") or kernels.is_gpu_name(backend)):
            levels = [level.cpu() for level in levels]  # the network is on a GPU, the backend on the CPU
        h, w = grid_of(levels[0].shape, p)
        return kernels.describe(levels, grid=(h, w), dim=p.dim, neighbourhood=p.neighbourhood, backend=backend)[0]

    def grid(self, patches: int) -> tuple[int, int]:
        """The grid (h, w) of ``patches`` patches: the network's input size divided by the first level's stride.

        With tiles the grid of all together.
        """
        p = self.parameters
        if p.tile is not None:
            return Tiles(p.image_size, p.tile, p.tile_overlap).grid(self._grid_of_tile())
        height, width = p.image_size
        for stride in (1, 2, 4, 8, 16, 32, 64):
            h, w = grid_of((-(-height // stride), -(-width // stride)), p)
            if h * w == patches:
                return h, w
        return self._grid_of_tile()


def grid_of(level: Sequence[int], p: Parameters) -> tuple[int, int]:
    """The grid (h, w) of patches over a first level of shape (..., h, w); ParameterError if no cell is left."""
    h, w = int(level[-2]), int(level[-1])
    stride = p.grid_stride or max(1, _PATCH_PIXELS * h // p.image_size[0])
    if h < stride or w < stride:
        raise ParameterError(f"grid_stride: {stride} leaves no cell of the first level's {h} x {w}; give a smaller one")
    return h // stride, w // stride


def in_memory(rows: Any, numbers: IndexArray | slice = slice(None)) -> FloatArray:
    """``rows[numbers]`` in the CPU's memory; rows on a GPU are selected before they are copied."""
    if isinstance(rows, np.ndarray):
        return rows[numbers]
    chosen = numbers if isinstance(numbers, slice) else _torch_index(numbers, rows)
    found: FloatArray = rows[chosen].cpu().numpy()
    return found


def _torch_index(numbers: IndexArray, rows: Any) -> Any:
    import torch

    return torch.from_numpy(numbers).to(rows.device)


def position_channels(grid: tuple[int, int], weight: float) -> FloatArray:
    """The position channels of each patch (supplement D), float32 (P, 2): weight * row/h, weight * col/w."""
    h, w = grid
    row, col = np.divmod(np.arange(h * w), w)
    return np.stack([weight * row / h, weight * col / w], axis=1).astype(np.float32)


@dataclass(frozen=True, eq=False)
class DescriptorSpace:
    """What a fit makes of the describer's rows.

    Attributes:
        projection: to principal components; None: the rows stay as they are.
        positions: float32 (P, 2), position channels that are appended, or None.
        cells: int64 (P,), the patches that count, those in the region of interest; None: all.
    """

    projection: Projection | None = None
    positions: FloatArray | None = None
    cells: IndexArray | None = None

    @classmethod
    def of(
        cls, p: Parameters, grid: tuple[int, int], projection: Projection | None, *, positions: bool
    ) -> DescriptorSpace:
        """The space of a fit with a grid (h, w); ``positions``: whether it has position channels."""
        cells = roi_cells(p, grid)
        channels = position_channels(grid, p.position_weight) if positions else None
        if channels is not None and cells is not None:
            channels = channels[cells]
        return cls(projection, channels, cells)

    def __call__(self, rows: Any) -> Any:
        """An image's descriptors, perhaps on a GPU, in this space; those of a projection are in the CPU's memory."""
        if self.cells is not None:
            rows = rows[self.cells if isinstance(rows, np.ndarray) else _torch_index(self.cells, rows)]
        if self.projection is not None:
            rows = self.projection(rows)
        if self.positions is None:
            return rows
        if isinstance(rows, np.ndarray):
            return np.concatenate([rows, self.positions], axis=1)
        import torch

        return torch.cat([rows, torch.from_numpy(self.positions).to(rows.device)], dim=1)


def all_finite(rows: Any) -> bool:
    """Whether descriptors, perhaps on a GPU, hold neither NaN nor infinity."""
    return bool(np.isfinite(rows).all() if isinstance(rows, np.ndarray) else rows.isfinite().all())


def check_descriptors(x: Any, name: str = "x") -> FloatArray:
    """(N, P, D) descriptors as float32 in C order, copied only if they are not.

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
                "image out, or correct what computes the descriptors"
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


def described_rows(describer: Describer, pixels: UInt8Array, space: DescriptorSpace, name: str) -> Any:
    """Descriptors of one network input, (P, D) float32 in ``space``; on the GPU as in `Describer.one`.

    Raises:
        NonFiniteError: the network's features; names the image.
    """
    rows = space(describer.one(pixels))
    if not all_finite(rows):
        raise bad_features(name)
    return rows


def bad_features(name: str) -> NonFiniteError:
    """The error for an image whose features are not finite."""
    return NonFiniteError(
        f"images: the backbone's features of {name} hold NaN or infinity; check its weights and normalisation"
    )
