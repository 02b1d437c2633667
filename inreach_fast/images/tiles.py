"""Tiles: an input larger than the network's, cut into overlapping parts (parameters ``tile`` and ``tile_overlap``).

Each tile passes through the network alone, and its descriptors are laid into one grid over the whole input. Where tiles
overlap, descriptors are averaged: a tile's weight falls linearly to 0 at each of its edges that another tile continues,
down and across, so that the weights of a place sum to 1 and nothing jumps at an edge. The sums are float32, tile by
tile in reading order: the same bits everywhere. Search and map know one grid and no tiles.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from ..array_types import FloatArray, UInt8Array
from ..errors import ParameterError

Size = tuple[int, int]


@dataclass(frozen=True)
class Tiles:
    """A cut of an input; sizes are (height, width) in pixels.

    Attributes:
        size: of a tile. count: (rows, columns) of tiles. overlap: pixels that neighbours share.
    """

    size: Size
    count: Size
    overlap: int

    def corners(self) -> Iterator[Size]:
        """(top, left) of each tile, in reading order."""
        down, right = (side - self.overlap for side in self.size)
        return ((r * down, c * right) for r in range(self.count[0]) for c in range(self.count[1]))

    def grid(self, of_tile: Size) -> Size:
        """The grid (h, w) of the whole input, for the grid of a tile.

        Raises:
            ParameterError: the patches of neighbouring tiles do not lie on one grid.
        """
        sides = []
        for side, cells, count in zip(self.size, of_tile, self.count, strict=True):
            pixels = side // cells
            if side % cells or (side - self.overlap) % pixels:
                near = [o for o in range(side // 2 + 1) if side % cells == 0 and (side - o) % pixels == 0]
                remedy = f"give one of {', '.join(map(str, near[:8]))}" if near else "give another image_size"
                raise ParameterError(
                    f"tile_overlap: {self.overlap} of {side} pixels; a tile has {cells} patches on that side, which "
                    f"must fit its neighbour's; {remedy}"
                )
            sides.append(count * cells - (count - 1) * (self.overlap // pixels))
        return sides[0], sides[1]

    def described(self, image: UInt8Array, describe: Callable[[UInt8Array], FloatArray], of_tile: Size) -> FloatArray:
        """Descriptors of an input, uint8 (H, W, 3): float32 (P, D).

        Args:
            describe: of a tile, uint8 (h, w, 3): (p, D). of_tile: their grid.
        """
        grid, out = self.grid(of_tile), np.empty(0, np.float32)
        fades = [self._fade(axis, of_tile[axis], grid[axis]) for axis in (0, 1)]
        for number, (top, left) in enumerate(self.corners()):
            part = np.ascontiguousarray(image[top : top + self.size[0], left : left + self.size[1]])
            rows = describe(part).reshape(*of_tile, -1)
            if not number:
                out = np.zeros((*grid, rows.shape[2]), np.float32)
            (r, down), (c, across) = fades[0][number // self.count[1]], fades[1][number % self.count[1]]
            out[r : r + of_tile[0], c : c + of_tile[1]] += (down[:, None] * across)[:, :, None] * rows
        return out.reshape(grid[0] * grid[1], -1)

    def _fade(self, axis: int, cells: int, whole: int) -> list[tuple[int, FloatArray]]:
        """Where each tile of an axis begins on the grid, and the weight of each of its cells, float32 (cells,)."""
        count = self.count[axis]
        shared = 0 if count == 1 else (count * cells - whole) // (count - 1)
        found = []
        for number in range(count):
            weight = np.ones(cells)
            rise = (np.arange(shared) + 0.5) / max(shared, 1)
            if number:
                weight[:shared] = rise
            if number < count - 1:
                weight[cells - shared :] = 1.0 - rise
            found.append((number * (cells - shared), weight.astype(np.float32)))
        return found
