"""InReaCh as the authors' program computes it: the peer for `fit` and `predict`. Written from the paper's algorithm.

Descriptors by unfolding every level (13 tensors of C*9 x 3136), torch.cdist and two minima for each (seed image,
image) pair, a Python loop over channels for the filters, faiss' flat index for scoring, scipy's Gaussian filter.
Same images, backbone, levels, seeds and parameters as ours. It stores the matched patches, as ours does (not the
exchanged ones of the authors' program), so that the two models can be compared. It does not choose a threshold.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as nnf
from PIL import Image
from scipy.ndimage import gaussian_filter

Rows = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]
UInt8 = npt.NDArray[np.uint8]


@dataclass
class Model:
    """The result of `fit`: the nominal patches in faiss's index, where each came from, and seconds by stage."""

    index: Any
    image_index: Ids
    patch_index: Ids
    positions: bool
    grid: tuple[int, int]
    size: int
    backbone: Any
    seconds: dict[str, float] = field(default_factory=dict)

    def predict(self, image: UInt8, sigma: float = 5.0) -> tuple[float, Rows]:
        """Image score and (H, W) map of a uint8 (H, W, 3) image."""
        batch = prepare(image, self.size)
        rows = describe(self.backbone.extract(batch[None]))
        return self.score(append_positions(rows, self.grid) if self.positions else rows, sigma)

    def score(self, rows: Rows, sigma: float = 5.0) -> tuple[float, Rows]:
        """As `predict`, from (P, D) descriptors."""
        squared = self.index.search(rows, 1)[0][:, 0].reshape(self.grid)
        upsampled = nnf.interpolate(torch.from_numpy(squared)[None, None], size=(self.size, self.size), mode="nearest")
        smoothed = gaussian_filter(upsampled[0, 0].numpy(), sigma)
        return float(smoothed.max()), smoothed


def fit(
    images: Sequence[UInt8],
    backbone: Any,
    *,
    size: int = 224,
    assoc_depth: int = 10,
    min_length: int = 3,
    max_std: float = 5.0,
    transpose_threshold: float = 600.0,
) -> Model:
    """Fit uint8 (H, W, 3) images; the first ``assoc_depth`` of them are the seed images.

    Args:
        images: the training images.
        backbone: an object whose ``extract(uint8 (1, h, w, 3))`` gives the levels, (1, C, h_l, w_l) each.
        size: side of the network's input.
        assoc_depth, min_length, max_std, transpose_threshold: as in the paper.
    """
    clock = _Clock()
    with clock("images"):
        batch = np.stack([prepare(image, size) for image in images])
        mean = batch.astype(np.float64).mean(axis=0)
        positions = bool(((mean - mean.transpose(1, 0, 2)) ** 2).mean() > transpose_threshold)
    rows = []
    for image in batch:
        with clock("backbone"):
            levels = backbone.extract(image[None])
        with clock("descriptors"):
            grid = (int(levels[0].shape[-2]), int(levels[0].shape[-1]))
            described = describe(levels)
            rows.append(append_positions(described, grid) if positions else described)
    x = np.stack(rows)
    seeds = list(range(min(assoc_depth, len(x))))
    with clock("association"):
        channel = associate(x, seeds)
    with clock("filters"):
        nominal = filter_channels(x, channel, seeds, min_length, max_std)
    with clock("index"):
        import faiss

        index = faiss.IndexFlatL2(x.shape[2])
        flat = x.reshape(-1, x.shape[2])
        index.add(flat[nominal])
    return Model(
        index=index,
        image_index=nominal // x.shape[1],
        patch_index=nominal % x.shape[1],
        positions=positions,
        grid=grid,
        size=size,
        backbone=backbone,
        seconds=clock.seconds,
    )


def prepare(image: UInt8, size: int) -> UInt8:
    """Resize to the network's input, without a crop."""
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR))


def describe(levels: Sequence[torch.Tensor], dim: int = 1024, neighbourhood: int = 3) -> Rows:
    """Levels (1, C, h, w) -> (P, dim): unfold, resample to the first level's grid, pool, concatenate, pool."""
    h, w = levels[0].shape[-2:]
    pooled = []
    with torch.inference_mode():
        for level in levels:
            channels, rows, columns = level.shape[1:]
            unfolded = nnf.unfold(level.contiguous(), neighbourhood, padding=neighbourhood // 2)
            unfolded = unfolded.reshape(1, channels * neighbourhood**2, rows, columns)
            if (rows, columns) != (h, w):
                unfolded = nnf.interpolate(unfolded, size=(h, w), mode="bilinear", align_corners=False)
            patches = unfolded.reshape(unfolded.shape[1], h * w).T
            pooled.append(nnf.adaptive_avg_pool1d(patches[:, None], dim)[:, 0])
        together = torch.cat(pooled, dim=1)
        return np.asarray(nnf.adaptive_avg_pool1d(together[:, None], dim)[:, 0].numpy())


def append_positions(rows: Rows, grid: tuple[int, int], weight: float = 5.0) -> Rows:
    """Append two channels: weight * row/h and weight * col/w."""
    h, w = grid
    row, column = np.divmod(np.arange(h * w), w)
    return np.concatenate([rows, np.stack([weight * row / h, weight * column / w], axis=1)], axis=1, dtype=np.float32)


def associate(x: Rows, seeds: Sequence[int]) -> Ids:
    """(N, P, D) -> int64 (N, P): the channel ``slot * P + p`` that each patch joins, or -1."""
    images, patches, _ = x.shape
    tensor = torch.from_numpy(x)
    best = torch.full((images, patches), torch.inf)
    channel = torch.full((images, patches), -1, dtype=torch.int64)
    q = torch.arange(patches)
    for slot, seed in enumerate(seeds):
        for image in range(images):
            if image == seed:
                continue
            distances = torch.cdist(tensor[image], tensor[seed])
            nearest, seed_patch = distances.min(dim=1)
            back = distances.min(dim=0).indices
            closer = nearest < best[image]
            joined = torch.where(back[seed_patch] == q, slot * patches + seed_patch, -1)
            channel[image] = torch.where(closer, joined, channel[image])
            best[image] = torch.where(closer, nearest, best[image])
    return np.asarray(channel.numpy())


def filter_channels(x: Rows, channel: Ids, seeds: Sequence[int], min_length: int, max_std: float) -> Ids:
    """Span and spread filter, one channel after the other; the patch numbers ``image * P + q`` that stay."""
    patches = x.shape[1]
    flat = torch.from_numpy(x).reshape(-1, x.shape[2])
    members: list[list[int]] = [[s * patches + p] for s in seeds for p in range(patches)]
    for row, joined in enumerate(channel.ravel().tolist()):
        if joined >= 0:
            members[joined].append(row)
    nominal: set[int] = set()
    for rows in members:
        if len(rows) <= min_length:
            continue
        values = flat[rows]
        distance = (values - values.mean(dim=0)).norm(dim=1)
        sigma = distance.std(unbiased=False)
        keep = (distance < max_std * sigma).tolist() if sigma > 0 else [True] * len(rows)
        kept = [row for row, stays in zip(rows, keep, strict=True) if stays]
        if len(kept) > min_length:
            nominal.update(kept)
    return np.array(sorted(nominal), dtype=np.int64)


class _Clock:
    """Seconds by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - start
