"""PatchSVDD (Yi and Yoon, ACCV 2020): an encoder of patches, trained on one class, and distances to what it has seen.

Close patches are pulled together (SVDD', section 3.1), and the direction from a patch to its neighbour is learnt
(section 3.2), with patches of 64 x 64 and, within them, of 32 x 32 (section 3.3). A patch is scored by the distance to
the nearest training patch, by the exact search of `kernels` (the authors' program searches approximately at 32 x 32);
the maps of both sizes are multiplied, and an image's score is its map's greatest value (section 3.4).

Training is the paper's: 300 epochs, D = 64, Adam with 1e-4, lambda = 1e-3. What it leaves open is the authors'
program's: an epoch draws every image 100 times, in batches of 64; the mean training image is subtracted. The last layer
of the position classifier is an ordinary one here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import torch
from torch.nn import functional

from ... import kernels
from ...array_types import Array, DoubleArray, FloatArray, UInt8Array
from ...backbones.weights import load_state, random_state
from ...errors import ParameterError
from ...system.progress import Progress, no_progress
from ...system.threads import before_torch
from .patch_encoder import LARGE, SMALL, PatchNetworks
from .patch_pairs import Corner, adjacent_pair, close_pair, noisy
from .peer import Peer, PeerSettings, check_image, check_images, fitted
from .training import Schedule, drawn_images, step_generator, train

STRIDES: Final = {SMALL: 4, LARGE: 16}
EPOCHS: Final = 300
DRAWS_AN_EPOCH: Final = 100


class PatchSVDD(Peer):
    """PatchSVDD with two sizes of patches.

    Args:
        settings: ``image_size`` of at least 64 x 64 (the paper: 256 x 256), ``seed``, ``threads``, ``training_steps``
            (the paper: those of 300 epochs), ``folder``, ``backend``.
        batch: pairs of patches of each of the four kinds in a step.
        learning_rate: of Adam.
        svdd_weight: lambda, the weight of SVDD' beside the positions' loss.
        dim: values of an embedding.
        width: channels of the encoder's first layer, of which the others have multiples.
        checkpoint_every: steps from one checkpoint to the next.

    Raises:
        ParameterError: images that are smaller than a patch.
    """

    def __init__(
        self,
        settings: PeerSettings,
        *,
        batch: int = 64,
        learning_rate: float = 1e-4,
        svdd_weight: float = 1e-3,
        dim: int = 64,
        width: int = 32,
        checkpoint_every: int = 100,
    ) -> None:
        super().__init__(settings)
        if min(settings.image_size) < LARGE:
            height, wide = settings.image_size
            raise ParameterError(
                f"image_size: {height} x {wide} is smaller than a patch of PatchSVDD; give at least {LARGE} x {LARGE}"
            )
        self.steps, self.batch, self.checkpoint_every = settings.training_steps, batch, checkpoint_every
        self.learning_rate, self.svdd_weight, self.dim, self.width = learning_rate, svdd_weight, dim, width
        with torch.device("meta"):  # draws nothing from torch's own generator
            self.networks = PatchNetworks(dim, width)
        load_state(self.networks, random_state(self.networks, settings.seed), "random weights")
        self.banks: dict[int, kernels.Bank] | None = None
        self.losses: list[float] = []
        self._mean: FloatArray = np.zeros((*settings.image_size, 3), np.float32)

    def parameters(self) -> dict[str, Any]:
        return {
            "steps": self.steps,
            "batch": self.batch,
            "learning_rate": self.learning_rate,
            "svdd_weight": self.svdd_weight,
            "dim": self.dim,
            "width": self.width,
        }

    def fit(self, images: Sequence[UInt8Array], progress: Progress = no_progress) -> None:
        check_images(images, self.settings)
        if self.steps is None:
            self.steps = EPOCHS * math.ceil(DRAWS_AN_EPOCH * len(images) / self.batch)
        self._mean = np.asarray(np.mean(images, axis=0, dtype=np.float64), dtype=np.float32)
        schedule = Schedule(
            "patchsvdd",
            self.steps,
            self.parameters() | {"seed": self.settings.seed},
            threads=self.settings.threads,
            folder=self.settings.folder,
            every=self.checkpoint_every,
        )
        optimiser = torch.optim.Adam(self.networks.parameters(), self.learning_rate)
        self.losses = train(self.networks, optimiser, lambda step: self._loss(images, step), images, schedule, progress)
        rows: dict[int, list[FloatArray]] = {SMALL: [], LARGE: []}
        for done, image in enumerate(images):
            for size, grid in self._embeddings(image).items():
                rows[size].append(grid.reshape(-1, self.dim))
            progress("embed", done + 1, len(images))
        self.banks = {size: kernels.Bank(np.concatenate(rows.pop(size)), name="patches") for size in (SMALL, LARGE)}

    def predict(self, image: UInt8Array) -> tuple[float, FloatArray]:
        """The map of both sizes multiplied, and its greatest value."""
        check_image(image, self.settings)
        banks = fitted(self.banks, self)
        product = np.ones(self.settings.image_size)
        for size, grid in self._embeddings(image).items():
            product *= spread(self._distances(grid, banks[size]), self.settings.image_size, size, STRIDES[size])
        values = product.astype(np.float32)
        return float(values.max()), values

    def _distances(self, grid: FloatArray, bank: kernels.Bank) -> FloatArray:
        """Distances (h, w) from embeddings (h, w, D) to the nearest in the bank."""
        found = kernels.nearest(grid.reshape(-1, self.dim), bank, backend=self.settings.backend)
        return np.sqrt(found.sq_distance).reshape(grid.shape[:2])

    def _patches(self, images: Sequence[UInt8Array], corners: Sequence[Corner], size: int) -> list[FloatArray]:
        """A patch (size, size, 3) of each image, less the mean image, in units of 255 grey levels."""
        where = [np.s_[y : y + size, x : x + size] for y, x in corners]
        return [self._input(image[at], self._mean[at]) for image, at in zip(images, where, strict=True)]

    @staticmethod
    def _input(pixels: UInt8Array, mean: FloatArray) -> FloatArray:
        return np.asarray((pixels - mean) / np.float32(255))

    def _embeddings(self, image: UInt8Array) -> dict[int, FloatArray]:
        """Embeddings (h, w, D), float32, of an image's patches of each size."""
        before_torch(torch.get_num_threads())
        with torch.inference_mode():
            pixels = torch.from_numpy(self._input(image, self._mean)).permute(2, 0, 1).contiguous()
            small, large = self.networks.encoder.grids(pixels, STRIDES[SMALL], STRIDES[LARGE])
            return {SMALL: small.contiguous().numpy(), LARGE: large.contiguous().numpy()}

    def _loss(self, images: Sequence[UInt8Array], step: int) -> torch.Tensor:
        """Both kinds of loss at both sizes; each step draws pairs of all four kinds from the same images."""
        seed = self.settings.seed
        rng = step_generator(seed, step)
        chosen = [images[number] for number in drawn_images(seed, len(images), self.batch, step)]
        encoder, extent = self.networks.encoder, self.settings.image_size
        loss = torch.zeros(())
        for size, encode in ((SMALL, encoder.small_patches), (LARGE, encoder.large_patches)):
            first, second, directions = zip(*(adjacent_pair(extent, size, rng) for _ in chosen), strict=True)
            patches = self._patches(chosen, first, size) + self._patches(chosen, second, size)
            rows = encode(_batch([noisy(patch, rng) for patch in patches])).chunk(2)
            logits = self.networks.positions[str(size)](*rows)
            loss = loss + functional.cross_entropy(logits, torch.tensor(directions))
            first, second = zip(*(close_pair(extent, size, rng) for _ in chosen), strict=True)
            patches = self._patches(chosen, first, size) + self._patches(chosen, second, size)
            rows = encode(_batch(patches)).chunk(2)
            loss = loss + self.svdd_weight * torch.linalg.vector_norm(rows[0] - rows[1], dim=1).mean()
        return loss


def spread(scores: Array, size: tuple[int, int], patch: int, stride: int) -> DoubleArray:
    """The map, float64 (H, W), of patch scores (h, w): each pixel's mean over the patches that hold it.

    Pixels at the right and lower edge that no patch holds have the value of their neighbours.
    """
    rows, columns = (_shares(count, side, patch, stride) for count, side in zip(scores.shape, size, strict=True))
    return np.asarray(rows @ scores @ columns.T)


def _shares(count: int, side: int, patch: int, stride: int) -> DoubleArray:
    """(side, count): what share of each pixel's value each of the patches along an axis has."""
    starts = np.arange(count) * stride
    pixels = np.minimum(np.arange(side), starts[-1] + patch - 1)[:, None]
    holds = (starts <= pixels) & (pixels < starts + patch)
    return np.asarray(holds / holds.sum(axis=1, keepdims=True))


def _batch(patches: Sequence[FloatArray]) -> torch.Tensor:
    """Patches (h, w, 3) as the encoder's input, (B, 3, h, w)."""
    return torch.from_numpy(np.stack(patches)).permute(0, 3, 1, 2).contiguous()
