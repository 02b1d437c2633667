"""`Backbone`: 8-bit images in, the levels' feature maps out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import nullcontext
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import nn

from ..array_types import UInt8Array
from ..errors import BackboneError, DataError, GpuError, GpuLostError, GpuMemoryError, ParameterError
from ..kernels.gpu.devices.driver_errors import as_gpu_error, typed_errors
from .capture import HookedNetwork
from .cut_resnet import CutResNet, can_be_cut
from .definition import IMAGENET, BackboneDefinition, LevelNetwork, Normalisation, as_normalisation, choose_levels
from .efficientnet_lite import CutEfficientNetLite, EfficientNetLite2

PRECISIONS = ("float32", "float16", "bfloat16")
_HALVES = {"float32": None, "float16": torch.float16, "bfloat16": torch.bfloat16}


class Backbone:
    """A network cut after its last level, with its preprocessing. Build it with `load_backbone` or
    `from_module`.

    Attributes:
        name: shown in every output and saved with the model.
        levels: names of the levels, in the order in which `extract` returns them.
        normalisation: how images are prepared.
        device: where the network is.
        spec: JSON-able; `backbone_from_spec` builds the same backbone from it where spec["rebuildable"] is
        true.
    """

    def __init__(
        self,
        definition: BackboneDefinition,
        levels: Sequence[str],
        *,
        device: str | torch.device = "cpu",
        normalisation: Normalisation | None = None,
        spec: dict[str, Any] | None = None,
        network: LevelNetwork | None = None,
    ) -> None:
        self.name = definition.name
        self.levels = tuple(levels)
        self.normalisation = normalisation or definition.normalisation
        network = (network or cut_network(definition, self.levels)).eval()
        for parameter in network.parameters():
            parameter.requires_grad_(False)
        try:
            self.device = torch.device(device)
            self._network = network.to(self.device).to(memory_format=torch.channels_last)
        except (RuntimeError, AssertionError) as error:
            failed = _failed_gpu(error, device)
            if isinstance(failed, (GpuMemoryError, GpuLostError)):
                raise failed from error
            first = str(error).splitlines()[0]
            raise ParameterError(f"device={str(device)!r} cannot be used here ({first}); 'cpu' always can.") from error
        self.spec: dict[str, Any] = {
            "name": self.name,
            "levels": list(self.levels),
            "normalisation": self.normalisation.to_json(),
            "rebuildable": False,
            **(spec or {}),
        }

    @classmethod
    def from_module(
        cls,
        module: nn.Module,
        levels: Sequence[str],
        *,
        normalisation: Normalisation | str | None = None,
        name: str = "custom",
        device: str | torch.device = "cpu",
    ) -> Backbone:
        """A backbone from any module: the outputs, (B, C, h, w), of its sub-modules named `levels`, shallow
        to deep.

        The module is used, not copied: it is put in evaluation mode, moved to `device` and to channels_last.
        A model fitted with it can be loaded only by giving the same backbone again.

        Raises:
            ParameterError: a level that the module does not have.
        """
        chosen = choose_levels(tuple(levels), (), {}, (), name)
        prepared = as_normalisation(normalisation, IMAGENET)
        return cls(BackboneDefinition(module, chosen, prepared, name), chosen, device=device)

    def extract(
        self, batch: UInt8Array, *, image_by_image: bool | None = None, precision: str = "float32"
    ) -> list[torch.Tensor]:
        """Features of a batch.

        Args:
            batch: uint8 (B, H, W, 3), RGB, of the network's input size.
            image_by_image: run the network on one image at a time. torch's convolutions may sum in another order in
                another batch; run one by one, an image has the same features, to the bit, in any batch (at one number
                of torch threads), and the activations of one image are all the memory taken. False costs that
                promise and is some per cent faster. None: True on the CPU, False elsewhere.
            precision: one of `PRECISIONS`, what products are computed in; halves change the features.

        Returns:
            One float32 tensor (B, C_l, h_l, w_l) a level, channels_last, on `device`, made in inference mode.
            They are yours: nothing later writes to them.

        Raises:
            DataError: another dtype or shape. BackboneError: the network failed, or a level is no (B, C, h,
            w) map.
        """
        if batch.dtype != np.uint8 or batch.ndim != 4 or batch.shape[3] != 3 or 0 in batch.shape:
            raise DataError(f"batch: {batch.dtype} {batch.shape} given, uint8 (B, H, W, 3) expected.")
        errors = nullcontext() if self.device.type == "cpu" else typed_errors(str(self.device))
        with torch.inference_mode(), errors:
            x = prepare_input(batch, self.normalisation, self.device)
            if image_by_image is None:
                image_by_image = self.device.type == "cpu"
            if not image_by_image or len(batch) == 1:
                return self._run(x, precision)
            first = self._run(x[:1], precision)
            levels = [
                torch.empty((len(batch), *level.shape[1:]), device=self.device, memory_format=torch.channels_last)
                for level in first
            ]
            for i in range(len(batch)):
                for whole, level in zip(levels, first if i == 0 else self._run(x[i : i + 1], precision), strict=True):
                    whole[i].copy_(level[0])
            return levels

    def run(self, x: torch.Tensor, precision: str = "float32") -> list[torch.Tensor]:
        """`extract` for an input that is prepared and on ``device`` already: float32 (B, 3, H, W), normalised."""
        return self._run(x, precision)

    def _run(self, x: torch.Tensor, precision: str) -> list[torch.Tensor]:
        half = _HALVES[precision]
        try:
            with _full_float32(self.device), torch.autocast(self.device.type, dtype=half, enabled=half is not None):
                outputs = self._network(x)
        except (RuntimeError, ValueError, TypeError) as error:
            if isinstance(error, BackboneError):
                raise
            failed = _failed_gpu(error, self.device)
            if failed is not None:
                raise failed from error
            raise BackboneError(
                f"{self.name} failed on an input of {x.shape[2]}x{x.shape[3]} pixels ({error}); "
                "another image_size may suit it."
            ) from error
        return [self._checked(level, out, len(x)) for level, out in zip(self.levels, outputs, strict=True)]

    def _checked(self, level: str, output: torch.Tensor, count: int) -> torch.Tensor:
        if output.ndim != 4 or output.shape[0] != count:
            raise BackboneError(f"{self.name}: level {level!r} has shape {tuple(output.shape)}, not (B, C, h, w).")
        return output.to(torch.float32).contiguous(memory_format=torch.channels_last)

    def level_shapes(self, height: int, width: int) -> list[tuple[int, int, int]]:
        """(C_l, h_l, w_l) of each level for an input of that size; by running a black image through it."""
        black = np.zeros((1, height, width, 3), np.uint8)
        return [(out.shape[1], out.shape[2], out.shape[3]) for out in self.extract(black)]

    @cached_property
    def fingerprint(self) -> str:
        """sha256, hex, over the name, dtype, shape and bytes of every weight up to the last level, in name
        order, the levels' names and the normalisation. Equal fingerprints: equal features, on one machine.
        """
        digest = hashlib.sha256()
        state = self._network.state_dict()
        for key in sorted(state):
            if key.endswith("num_batches_tracked"):
                continue  # training's counter; no output depends on it
            tensor = state[key].detach().cpu().contiguous()
            digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
        tail = {"levels": list(self.levels), "normalisation": self.normalisation.to_json()}
        digest.update(json.dumps(tail, sort_keys=True).encode())
        return digest.hexdigest()

    def __repr__(self) -> str:
        return f"Backbone({self.name!r}, {len(self.levels)} levels, device={str(self.device)!r})"


def _full_float32(device: torch.device) -> Any:
    """A context in which cuDNN reads float32 as float32 (no TF32), and chooses algorithms that repeat their bits."""
    if device.type != "cuda":
        return nullcontext()
    return torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)


def _failed_gpu(error: Exception, device: str | torch.device) -> GpuError | None:
    """The error for a GPU that failed or is full; None for an error of the network's own."""
    # By name: torch 2.1 has not all of them.
    of_gpu = type(error).__name__ in ("OutOfMemoryError", "AcceleratorError") or "CUDA error" in str(error)
    return as_gpu_error(error, str(device)) if of_gpu else None


def prepare_input(batch: UInt8Array, normalisation: Normalisation, device: torch.device | str = "cpu") -> torch.Tensor:
    """uint8 (B, H, W, 3) RGB to normalised float32 (B, 3, H, W), channels_last, on `device`.

    (v * scale - mean) / std is computed as (v - mean / scale) / (std / scale), in place, over whole image
    rows: that is one pass less, and a row's three interleaved colours vectorise where single pixels do not.
    """
    count, height, width, _ = batch.shape
    order = -1 if normalisation.channel_order == "BGR" else 1
    pixels = torch.from_numpy(np.require(batch[..., ::order], requirements=["C", "W"])).to(device)
    shift = torch.tensor([m / normalisation.scale for m in normalisation.mean], dtype=torch.float32, device=device)
    spread = torch.tensor([s / normalisation.scale for s in normalisation.std], dtype=torch.float32, device=device)
    x = pixels.view(count * height, width * 3).to(torch.float32)
    x.sub_(shift.repeat(width)).div_(spread.repeat(width))
    return x.view(count, height, width, 3).permute(0, 3, 1, 2)


def cut_network(definition: BackboneDefinition, levels: tuple[str, ...]) -> LevelNetwork:
    """A network that returns `levels` and keeps no more of `definition.module` than it can help."""
    module = definition.module
    if isinstance(module, EfficientNetLite2):
        return CutEfficientNetLite(module, levels)
    if can_be_cut(module, levels):
        return CutResNet(module, levels)
    return HookedNetwork(module, levels, definition.name)
