"""Plain NumPy float64 descriptors by the unfolding route, step by step as ALGORITHM section 3 tells them.

Slow and large on purpose: every intermediate tensor exists. What the fused `describe` is held against.
"""

from __future__ import annotations

import math

import numpy as np


def unfold(level: np.ndarray, k: int) -> np.ndarray:
    """(C, h, w) -> (C*k*k, h, w): k x k surroundings, zero outside, in (channel, ky, kx) order."""
    c, h, w = level.shape
    padded = np.zeros((c, h + k - 1, w + k - 1))
    padded[:, k // 2 : k // 2 + h, k // 2 : k // 2 + w] = level
    out = np.empty((c * k * k, h, w))
    for channel in range(c):
        for ky in range(k):
            for kx in range(k):
                out[channel * k * k + ky * k + kx] = padded[channel, ky : ky + h, kx : kx + w]
    return out


def adaptive_pool(x: np.ndarray, m: int) -> np.ndarray:
    """(n, ...) -> (m, ...): entry j averages entries floor(j*n/m) .. ceil((j+1)*n/m) - 1."""
    n = len(x)
    return np.stack([x[j * n // m : math.ceil((j + 1) * n / m)].mean(axis=0) for j in range(m)])


def resize_axis(x: np.ndarray, size: int, axis: int) -> np.ndarray:
    """Bilinear resampling, align_corners=False, of one axis."""
    source = x.shape[axis]
    position = np.clip((np.arange(size) + 0.5) * source / size - 0.5, 0, source - 1)
    low = np.minimum(np.floor(position).astype(int), source - 1)
    high = np.minimum(low + 1, source - 1)
    shape = [1] * x.ndim
    shape[axis] = size
    t = (position - low).reshape(shape)
    return (1 - t) * np.take(x, low, axis=axis) + t * np.take(x, high, axis=axis)


def describe(levels: list[np.ndarray], grid: tuple[int, int], dim: int = 1024, neighbourhood: int = 3) -> np.ndarray:
    """Levels of (C, h, w) -> (P, dim) float64."""
    vectors = []
    for level in levels:
        x = unfold(np.asarray(level, dtype=np.float64), neighbourhood)
        x = resize_axis(resize_axis(x, grid[0], 1), grid[1], 2)
        vectors.append(adaptive_pool(x.reshape(len(x), -1), dim))
    return adaptive_pool(np.concatenate(vectors), dim).T
