"""CutPaste (Li, Sohn, Yoon, Pfister, CVPR 2021): a network learns to tell images from ones with a pasted piece.

The 3-way variant (section 2.2): a ResNet-18 tells training images, CutPaste and CutPaste-Scar apart; an image is scored
by a Gaussian density of the network's pooled features (section 2.3).

Training is the paper's (its appendix): 256 epochs of 256 updates; 32 images a step, each in its three forms, which is
the batch of 96; SGD with momentum 0.9, weight decay 3e-5 and a learning rate of 0.03 that falls along half a cosine;
colour jitter and small translations; from random weights, as in Table 1. The paper leaves two things open. The
projection head has layers of 512 and 128 values here, and the density is that of the features before it, with Ledoit
and Wolf's covariance as in Rippel et al., ICPR 2020.

Maps: the paper localises with another network, trained on patches of 64 x 64 and applied at a stride of 4. That is 2401
passes through the network an image of 256 x 256: minutes on a CPU. Here they are GradCAM's, with which the paper shows
where the image-level network looks (figure 1): what the last feature maps add to the squared Mahalanobis distance, to
first order. Each cell is 32 pixels wide, so pixel figures are below those of the paper's patches.
"""

from __future__ import annotations

import logging
import os
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torchvision.models import resnet18
from torchvision.models.resnet import ResNet18_Weights

from ...array_types import FloatArray, UInt8Array
from ...backbones.backbone import prepare_input
from ...backbones.definition import IMAGENET
from ...backbones.weights import hub_file, load_state, random_state, read_state
from ...errors import ParameterError, WeightsError
from ...system.progress import Progress, no_progress
from ...system.threads import before_torch
from .density import GaussianDensity
from .pasting import cut_paste, cut_paste_scar, varied
from .peer import Peer, PeerSettings, check_image, check_images, fitted, upsampled
from .training import Schedule, cosine, drawn_images, step_generator, train

STEPS: Final = 256 * 256
_LEAST_SIDE: Final = 32  # the network halves its input five times
_CLASSES: Final = 3
_log = logging.getLogger("inreach_fast")


class CutPaste(Peer):
    """CutPaste, 3-way.

    Args:
        settings: ``image_size`` of at least 32 x 32 (the paper: 256 x 256), ``seed``, ``threads``, ``training_steps``
            (the paper: 65,536), ``folder``.
        images_a_step: training images of a step.
        learning_rate, momentum, weight_decay: of SGD; the rate is that of the first step.
        head: widths of the projection head.
        weights: "random"; "imagenet", torchvision's, or random ones where they can be neither found nor fetched, which
            is logged; or a state dict of a ResNet-18 (.safetensors, .pth, .pt).
        checkpoint_every: steps from one checkpoint to the next.

    Raises:
        ParameterError: an image size that is too small. WeightsError: a file of weights that cannot be used.
    """

    def __init__(
        self,
        settings: PeerSettings,
        *,
        images_a_step: int = 32,
        learning_rate: float = 0.03,
        momentum: float = 0.9,
        weight_decay: float = 3e-5,
        head: Sequence[int] = (512, 128),
        weights: str | os.PathLike[str] = "random",
        checkpoint_every: int = 32,
    ) -> None:
        super().__init__(settings)
        if min(settings.image_size) < _LEAST_SIDE:
            height, width = settings.image_size
            raise ParameterError(
                f"image_size: {height} x {width} is too small for CutPaste's network; give at least "
                f"{_LEAST_SIDE} x {_LEAST_SIDE}"
            )
        self.steps = STEPS if settings.training_steps is None else settings.training_steps
        self.images_a_step, self.checkpoint_every = images_a_step, checkpoint_every
        self.learning_rate, self.momentum, self.weight_decay = learning_rate, momentum, weight_decay
        self.head = tuple(head)
        with torch.device("meta"):  # draws nothing from torch's own generator
            self.network = _Classifier(self.head)
        load_state(self.network, random_state(self.network, settings.seed), "random weights")
        self.weights = self._load(os.fspath(weights))
        self.density: GaussianDensity | None = None
        self.losses: list[float] = []

    def parameters(self) -> dict[str, Any]:
        return {
            "steps": self.steps,
            "images_a_step": self.images_a_step,
            "learning_rate": self.learning_rate,
            "momentum": self.momentum,
            "weight_decay": self.weight_decay,
            "head": list(self.head),
            "weights": self.weights,
        }

    def fit(self, images: Sequence[UInt8Array], progress: Progress = no_progress) -> None:
        check_images(images, self.settings)
        optimiser = torch.optim.SGD(
            self.network.parameters(), self.learning_rate, momentum=self.momentum, weight_decay=self.weight_decay
        )
        schedule = Schedule(
            "cutpaste",
            self.steps,
            self.parameters() | {"seed": self.settings.seed},
            learning_rate=cosine(self.learning_rate, self.steps),
            threads=self.settings.threads,
            folder=self.settings.folder,
            every=self.checkpoint_every,
        )
        self.losses = train(self.network, optimiser, lambda step: self._loss(images, step), images, schedule, progress)
        embeddings = []
        for done, image in enumerate(images):
            embeddings.append(self._features(image)[0])
            progress("embed", done + 1, len(images))
        self.density = GaussianDensity.fit(np.stack(embeddings))

    def predict(self, image: UInt8Array) -> tuple[float, FloatArray]:
        """The Mahalanobis distance of the image's features, and the map of GradCAM."""
        check_image(image, self.settings)
        density = fitted(self.density, self)
        embedding, maps = self._features(image)
        weights = density.gradient(embedding) / maps[0].size
        contribution = np.maximum(np.tensordot(weights, maps, axes=1), 0).astype(np.float32)
        return float(density.distances(embedding[None])[0]), upsampled(contribution, self.settings.image_size)

    def _load(self, weights: str) -> str:
        """Loads the features' initial weights; returns what they are."""
        if weights == "imagenet":
            try:
                path = hub_file(ResNet18_Weights.IMAGENET1K_V1.url, "resnet18")
            except WeightsError as error:
                _log.warning("cutpaste: %s; training begins from random weights", error)
                weights = "random"
            else:
                load_state(self.network.features, read_state(path), str(path))
        elif weights != "random":
            load_state(self.network.features, read_state(weights), weights)
        return weights

    def _loss(self, images: Sequence[UInt8Array], step: int) -> torch.Tensor:
        """Cross entropy of three classes over a step's images as they are, with a piece, and with a scar."""
        seed = self.settings.seed
        rng = step_generator(seed, step)
        chosen = drawn_images(seed, len(images), self.images_a_step, step)
        normal = [varied(images[number], rng) for number in chosen]
        pasted = [make(image, rng) for make in (cut_paste, cut_paste_scar) for image in normal]
        forms = np.stack([np.asarray(image) for image in normal + pasted])
        truth = torch.arange(_CLASSES).repeat_interleave(len(normal))
        return functional.cross_entropy(self.network(prepare_input(forms, IMAGENET)), truth)

    def _features(self, image: UInt8Array) -> tuple[FloatArray, FloatArray]:
        """Pooled features (D,) and feature maps (D, h, w) of an image, float32."""
        before_torch(torch.get_num_threads())
        with torch.inference_mode():
            maps = self.network.features(prepare_input(image[None], IMAGENET))[0]
            return maps.mean(dim=(1, 2)).numpy(), maps.numpy()


class _Classifier(nn.Module):
    """A ResNet-18 up to its last feature maps, and a projection head with three classes on their means."""

    def __init__(self, head: Sequence[int]) -> None:
        super().__init__()
        children = resnet18().named_children()
        self.features = nn.Sequential(
            OrderedDict((name, child) for name, child in children if name not in ("avgpool", "fc"))
        )
        layers: list[nn.Module] = []
        width = 512
        for size in head:
            layers += [nn.Linear(width, size), nn.ReLU()]
            width = size
        self.head = nn.Sequential(*layers, nn.Linear(width, _CLASSES))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.features(images).mean(dim=(2, 3)))
        return logits
