"""Maps by the kernels, from and to NumPy."""

from __future__ import annotations

import numpy as np

from inreach_fast.kernels.gpu.smooth import Smoother
from inreach_fast.method.scoring import axis_operator

from .device import HostDevice


def anomaly_maps(
    device: HostDevice, scores: np.ndarray, size: tuple[int, int], sigma: float
) -> tuple[np.ndarray, np.ndarray]:
    """Maps float32 (B, H, W) and their maxima float32 (B,) of patch scores float32 (B, h, w)."""
    batch, *cells = scores.shape
    rows, columns = (axis_operator(n, c, sigma) for n, c in zip(size, cells, strict=True))
    smoothed, greatest = device.empty((batch, *size), np.float32), device.empty(batch, np.float32)
    Smoother(device, rows, columns, size, batch).launch(device.upload(scores), smoothed, greatest)
    return device.download(smoothed), device.download(greatest)
