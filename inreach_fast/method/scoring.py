"""From descriptors to patch scores, maps and image scores (paper, section 3.4; ALGORITHM section 6; S.C).

Three scores start from the nearest nominal patch m of a patch x:

* nearest: d(x, m), the distance itself (the default).
* mahalanobis: the distance from x to the mean of m's channel, each value in units of the channel's standard
  deviation. 1 % of the mean channel variance is added to each variance: in a channel of four patches some values
  can have variance 0 (ReLU features are often exactly 0), and would be all that counts. The supplement's poor
  figures for this score come from such deviations.
* patchcore (Roth et al. 2022, eq. 7, for each patch): w * d(x, m) with
  w = 1 - exp(|x - m|) / sum(exp(|x - m'|)) over the 9 nominal patches m' nearest to m, itself included.

* reachability: the least max(d(x, b), r(b)) over the nominal patches b, r(b) the confirmation distance of b
  (`method.reachability`); needs a model of all patches (ALGORITHM section 8).

A score is a squared distance, as in the authors' program, unless ``distance="l2"``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter1d

from .. import kernels
from ..array_types import Array, BoolArray, DoubleArray, FloatArray, IndexArray
from ..errors import ParameterError
from ..images.preprocess import roi_cells
from ..kernels.band import Band
from ..kernels.distance import exact_sq_distance
from ..kernels.smoothing import smooth
from ..parameters import Parameters

PATCHCORE_NEIGHBOURS = 9
VARIANCE_SHARE = 0.01
_CHUNK = 1024


@dataclass(frozen=True, eq=False)
class Scorer:
    """Scores patches against a bank of nominal ones.

    Attributes:
        bank: nominal patches, with their images as groups; their floor counts for "reachability" alone.
        channel: returns int64 (n,), a number for each bank row that is equal within a channel.
        score, distance, backend: as in `Parameters`.
        excluded: int64, bank rows that count for nothing; None: none. For a score that ``is_distance``.
    """

    bank: kernels.Bank
    channel: Callable[[], IndexArray]
    score: str = "nearest"
    distance: str = "squared_l2"
    backend: str = "auto"
    excluded: IndexArray | None = None

    def __post_init__(self) -> None:
        if self.score not in ("nearest", "mahalanobis", "patchcore", "reachability"):
            raise ParameterError(f"score: unknown {self.score!r}")
        if self.score != "reachability":
            if self.bank.floor is not None:
                object.__setattr__(self, "bank", self.bank.with_floor(None))
        elif self.bank.floor is None:
            raise ParameterError('score: "reachability" needs a model that was fitted with association="all"')
        if self.excluded is not None and len(self.excluded):
            floor = np.zeros(len(self.bank), np.float32) if self.bank.floor is None else np.array(self.bank.floor)
            floor[self.excluded] = np.inf
            object.__setattr__(self, "bank", self.bank.with_floor(floor))

    @property
    def is_distance(self) -> bool:
        """Whether a score is a monotone function of one search's result, which bounds of that search then bound."""
        return self.score in ("nearest", "reachability")

    def patch_scores(self, rows: FloatArray, leave_out: int | None = None) -> tuple[FloatArray, IndexArray]:
        """Scores of patches, float32 (m,), and their nearest bank rows, int64 (m,).

        Args:
            rows: (m, D) float32 descriptors.
            leave_out: training image whose own patches are ignored (leave-one-image-out). If no nominal patch is left
                for a patch, its score is infinity and its nearest row -1.
        """
        group = None if leave_out is None else np.full(len(rows), leave_out, dtype=np.int64)
        found = kernels.nearest(rows, self.bank, query_group=group, backend=self.backend)
        return self.scores_of(rows, found, leave_out), found.index

    def scores_of(self, rows: FloatArray, found: kernels.Nearest, leave_out: int | None = None) -> FloatArray:
        """Scores of patches, float32 (m,), whose nearest bank rows are known; see `patch_scores`."""
        squared = found.sq_distance
        if self.score == "mahalanobis":
            squared = self._mahalanobis(rows, found.index, leave_out)
        values = self.of_squared(squared)
        if self.score == "patchcore":
            values = values * self._patchcore_weight(rows, found, leave_out)
        return values.astype(np.float32, copy=False)

    def of_squared(self, squared: FloatArray) -> FloatArray:
        """Squared distances, float32, as scores: themselves or their roots. Monotone, rounding included."""
        return squared if self.distance == "squared_l2" else np.sqrt(squared)

    def _patchcore_weight(self, rows: FloatArray, found: kernels.Nearest, leave_out: int | None) -> FloatArray:
        weight = np.ones(len(rows), dtype=np.float32)
        valid = np.flatnonzero(found.index >= 0)
        if not len(valid):
            return weight
        nearest, inverse = np.unique(found.index[valid], return_inverse=True)
        group = None if leave_out is None else np.full(len(nearest), leave_out, dtype=np.int64)
        around = kernels.nearest(
            self._rows(nearest), self.bank, k=PATCHCORE_NEIGHBOURS, query_group=group, backend=self.backend
        ).index[inverse.ravel()]
        distance = np.full(around.shape, -np.inf)  # weighs nothing where the bank has fewer than nine rows
        for j in range(around.shape[1]):
            have = np.flatnonzero(around[:, j] >= 0)
            for start in range(0, len(have), _CHUNK):
                part = have[start : start + _CHUNK]
                distance[part, j] = np.sqrt(exact_sq_distance(rows[valid[part]], self._rows(around[part, j])))
        own = np.sqrt(found.sq_distance[valid].astype(np.float64))
        greatest = np.maximum(distance.max(axis=1), own)  # exp of a difference cannot overflow
        total = np.exp(distance - greatest[:, None]).sum(axis=1)
        weight[valid] = 1.0 - np.exp(own - greatest) / np.maximum(total, np.finfo(np.float64).tiny)
        return np.maximum(weight, 0)

    def _mahalanobis(self, rows: FloatArray, nearest: IndexArray, leave_out: int | None) -> FloatArray:
        out = np.full(len(rows), np.inf, dtype=np.float32)
        valid = np.flatnonzero(nearest >= 0)
        if not len(valid):
            return out
        channel = self.channel()
        wanted, slot = np.unique(channel[nearest[valid]], return_inverse=True)
        slot = slot.ravel()
        members = np.flatnonzero(np.isin(channel, wanted))
        if leave_out is not None and self.bank.groups is not None:
            members = members[self.bank.groups[members] != leave_out]
        members = members[np.argsort(channel[members], kind="stable")]
        start = np.searchsorted(channel[members], np.append(wanted, wanted[-1] + 1))
        floor = VARIANCE_SHARE * self._mean_variance or 1.0
        by_channel = np.argsort(slot, kind="stable")
        ends = np.searchsorted(slot[by_channel], np.arange(len(wanted) + 1))
        for c in range(len(wanted)):
            x = self._rows(members[start[c] : start[c + 1]]).astype(np.float64)
            mean = x.mean(axis=0)
            variance = ((x - mean) ** 2).mean(axis=0) + floor
            at = valid[by_channel[ends[c] : ends[c + 1]]]
            out[at] = ((rows[at] - mean) ** 2 / variance).sum(axis=1)
        return out

    @cached_property
    def _mean_variance(self) -> float:
        """Mean variance of a value inside a channel, over all channels, weighted by their sizes."""
        channel = self.channel()
        order = np.argsort(channel, kind="stable")
        total, dim = 0.0, self.bank.dim
        bounds = np.flatnonzero(np.diff(channel[order], prepend=channel[order[0]] - 1))
        for first, last in zip(bounds, np.append(bounds[1:], len(order)), strict=True):
            x = self._rows(order[first:last]).astype(np.float64)
            total += float(((x - x.mean(axis=0)) ** 2).sum())
        return total / (len(order) * dim)

    def _rows(self, numbers: IndexArray) -> FloatArray:
        index = self.bank.index
        return np.asarray(self.bank.rows[numbers if index is None else index[numbers]])


@dataclass(frozen=True, eq=False)
class MapFrame:
    """The way from the scores of an image's n patches to its map.

    Attributes:
        grid: (h, w) of the patches. size: (H, W) of the map. smoothing_sigma: of its Gaussian filter, in pixels.
        cells: int64 (n,), ascending: the places of the grid, ``row * w + col``, that have a patch; None: all.
    """

    grid: tuple[int, int]
    size: tuple[int, int]
    smoothing_sigma: float
    cells: IndexArray | None = None

    @property
    def count(self) -> int:
        """n."""
        return self.grid[0] * self.grid[1] if self.cells is None else len(self.cells)

    def on_grid(self, values: Array, empty: float = np.nan) -> Array:
        """(n,) values as (h, w), with ``empty`` at the places that have no patch."""
        if self.cells is None:
            return values.reshape(self.grid)
        full = np.full(self.grid[0] * self.grid[1], empty, dtype=values.dtype)
        full[self.cells] = values
        return full.reshape(self.grid)

    def places(self, patches: IndexArray) -> IndexArray:
        """The places on the grid of some of the n patches, int64."""
        return patches if self.cells is None else self.cells[patches]

    def touched(self, mask: BoolArray) -> BoolArray:
        """The patches that have a pixel of a mask (H, W), bool (n,)."""
        down, right = np.nonzero(mask)
        found = np.zeros(self.grid, dtype=bool)
        found[down * self.grid[0] // self.size[0], right * self.grid[1] // self.size[1]] = True
        return found.ravel() if self.cells is None else found.ravel()[self.cells]

    def map(self, values: npt.NDArray[np.floating]) -> FloatArray:
        """`anomaly_map` of (n,) scores, float32 (H, W).

        Where places of the grid have no patch, a pixel is the mean of the patches that there are, by their weights in
        the filter; pixels of empty places are NaN.
        """
        if self.cells is None:
            return anomaly_map(values.reshape(self.grid), self.size, self.smoothing_sigma)
        inside, weight = self._inside
        smoothed = anomaly_map(self.on_grid(values, 0.0), self.size, self.smoothing_sigma)
        return np.where(inside, smoothed / weight, np.float32(np.nan))

    def back_projection(self, pixels: DoubleArray) -> DoubleArray:
        """The weighted sum of (H, W) pixels for each patch, (n,): the transpose of `map`."""
        if self.cells is None:
            return back_projection(pixels, self.grid, self.smoothing_sigma).ravel()
        inside, weight = self._inside
        return back_projection(np.where(inside, pixels / weight, 0.0), self.grid, self.smoothing_sigma).ravel()[
            self.cells
        ]

    @cached_property
    def _inside(self) -> tuple[BoolArray, FloatArray]:
        """Pixels of the places that have a patch, bool (H, W), and the sum of the filter's weights there."""
        assert self.cells is not None
        full = self.on_grid(np.ones(len(self.cells)), 0.0)
        inside = anomaly_map(full, self.size, 0.0) > 0
        return inside, np.where(inside, anomaly_map(full, self.size, self.smoothing_sigma), np.float32(1.0))


@lru_cache(maxsize=8)
def frame_of(p: Parameters, grid: tuple[int, int]) -> MapFrame:
    """The frame of the images of a fit with a grid (h, w)."""
    return MapFrame(grid, p.input_size, p.smoothing_sigma, roi_cells(p, grid))


def anomaly_map(patch_scores: npt.NDArray[np.floating], size: tuple[int, int], smoothing_sigma: float) -> FloatArray:
    """Nearest upsampling of (h, w) patch scores to ``size`` = (H, W), then a Gaussian filter; float32.

    The filter is scipy's `gaussian_filter` (truncate 4, reflected borders), ``smoothing_sigma`` in pixels.
    Both are linear and separable: the map is A s B^T with two small banded matrices, applied as sums in a fixed order
    (the bits of a BLAS product would depend on the threads).
    """
    height, width = size
    h, w = patch_scores.shape
    rows, columns = axis_operator(height, h, smoothing_sigma), axis_operator(width, w, smoothing_sigma)
    source = np.asarray(patch_scores, dtype=np.float64)
    if not np.isfinite(source).all():
        # A patch without a nominal patch scores infinity, and 0 * inf is NaN.
        source = np.where(np.isfinite(source), source, np.finfo(np.float32).max)
    return smooth(source, rows, columns, size)


def back_projection(pixels: DoubleArray, grid: tuple[int, int], smoothing_sigma: float) -> DoubleArray:
    """The transpose of `anomaly_map`, A^T v B: for each patch of ``grid`` the weighted sum of (H, W) pixels, (h, w)."""
    height, width = pixels.shape
    rows, columns = axis_operator(height, grid[0], smoothing_sigma), axis_operator(width, grid[1], smoothing_sigma)
    half = np.stack([(column[:, None] * pixels[low:high]).sum(axis=0) for low, high, column in rows])
    half = np.ascontiguousarray(half.T)
    return np.stack([(column[:, None] * half[low:high]).sum(axis=0) for low, high, column in columns], axis=1)


@lru_cache(maxsize=32)
def axis_operator(n: int, cells: int, sigma: float) -> Band:
    """Column j of (Gaussian filter * nearest upsampling) for one axis: (first row, last row + 1, values)."""
    matrix = np.zeros((n, cells), dtype=np.float64)
    matrix[np.arange(n), np.arange(n) * cells // n] = 1.0
    if sigma > 0:
        matrix = gaussian_filter1d(matrix, sigma, axis=0, mode="reflect", truncate=4.0)
    columns = []
    for j in range(cells):
        used = np.flatnonzero(matrix[:, j])
        low, high = (int(used[0]), int(used[-1]) + 1) if len(used) else (0, 0)
        columns.append((low, high, np.ascontiguousarray(matrix[low:high, j])))
    return Band(columns)


def image_score(smoothed: npt.NDArray[np.floating]) -> float:
    """An image's score: the greatest value of its smoothed map; NaN, where nothing was inspected, does not count."""
    greatest = float(smoothed.max())
    return greatest if greatest == greatest else float(np.nanmax(smoothed))
