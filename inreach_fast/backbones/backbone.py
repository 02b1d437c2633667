"""`Backbone`: 8-bit images in, feature maps of the levels out."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import nn

from ..array_types import UInt8Array
from ..errors import BackboneError, DataError, GpuError, GpuLostError, GpuMemoryError, InReachError, ParameterError
from ..kernels.gpu.devices.driver_errors import as_gpu_error, typed_errors
from ..parameters import INT8, UNFOLDED
from ..system.threads import before_torch
from .definition import IMAGENET, BackboneDefinition, CutNetwork, Normalisation, as_normalisation
from .efficientnet_lite import BLOCK_NAMES, STEM_NAMES, EfficientNetLite2
from .exported_network import ExportedNetwork
from .fused_convolution import winograd_share
from .hooked_network import HookedNetwork
from .quantization import Ranges, folded_to_quantize, input_ranges, quantized, ranges_from_json
from .resnet import cut_resnet
from .runtimes import agree, network_by
from .weights import reason

_AUTOCAST = {"float32": None, "float16": torch.float16, "bfloat16": torch.bfloat16}


class Backbone:
    """A network cut after its last level, with its preprocessing; made by `load_backbone` or `from_module`.

    Attributes:
        name: shown in outputs and saved with the model.
        levels: names of the levels, in the order of `extract`.
        normalisation: of the network's input.
        device: of the network.
        runtime: what computes the network (`backbones.runtimes`): its own layers, "torch-unfolded", unless
            `with_runtime` made this one.
        spec: JSON-able; `backbone_from_spec` builds the same backbone from it if spec["rebuildable"] is true.
    """

    def __init__(
        self,
        definition: BackboneDefinition,
        levels: Sequence[str],
        *,
        device: str | torch.device = "cpu",
        normalisation: Normalisation | None = None,
        spec: dict[str, Any] | None = None,
        network: nn.Module | None = None,
    ) -> None:
        before_torch(torch.get_num_threads())  # moving weights to another layout uses them as well
        self.name = definition.name
        self.levels = tuple(levels)
        self.runtime = UNFOLDED
        self.normalisation = normalisation or definition.normalisation
        network = (network or cut_network(definition, self.levels)).eval().requires_grad_(False)
        try:
            self.device = torch.device(device)
            self._network: nn.Module | ExportedNetwork = network.to(self.device).to(memory_format=torch.channels_last)
        except (RuntimeError, AssertionError) as error:
            failed = _gpu_failure(error, device)
            if isinstance(failed, (GpuMemoryError, GpuLostError)):
                raise failed from error
            raise ParameterError(
                f"device: {str(device)!r} cannot be used here ({reason(error)}); 'cpu' always can"
            ) from error
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
        """A backbone of any module: the outputs, (B, C, h, w), of its sub-modules ``levels``, from shallow to deep.

        The module is used, not copied: it is put in evaluation mode, moved to `device` and to channels_last.
        A model fitted with it can be loaded only by giving the same backbone again.

        Raises:
            ParameterError: a level that the module does not have.
        """
        definition = BackboneDefinition(module, tuple(levels), as_normalisation(normalisation, IMAGENET), name)
        return cls(definition, definition.choose_levels(definition.levels), device=device)

    @property
    def is_quantized(self) -> bool:
        """Whether `quantized` made it."""
        return INT8 in self.spec

    def with_runtime(self, name: str, size: tuple[int, int] = (224, 224)) -> Backbone:
        """The same backbone, computed by another runtime; this one remains unchanged.

        Name, levels, fingerprint and spec are the same; features differ in their last bits. A runtime other than
        torch's exports the network at the first input of a size (`backbones.network_cache`); what this raises is
        raised then.

        Args:
            name: of the runtime, one of `backbones.runtimes.RUNTIMES`.
            size: (height, width) of the inputs that are to come.

        Raises:
            ParameterError: an unknown name, or this backbone was made by `with_runtime` itself.
            RuntimeUnavailableError: the runtime is not installed, or computes on the CPU alone and this is on a GPU.
        """
        if name == self.runtime:
            return self
        if self.runtime != UNFOLDED:
            raise ParameterError(
                f"backbone_runtime: {self.name} is given with the runtime {self.runtime!r}, not {name!r}; give the "
                "backbone that with_runtime was called on"
            )
        before_torch(torch.get_num_threads())
        assert isinstance(self._network, nn.Module)
        fingerprint = self.fingerprint  # of the weights as they are now; the other one has them folded
        other = copy.copy(self)
        other._network = network_by(name, self._network, fingerprint, self.device, self.name, size)
        other.runtime = name
        return other

    def quantized(self, images: UInt8Array) -> Backbone:
        """The same backbone with convolutions that multiply 8-bit integers; this one remains unchanged.

        It is another network, with a fingerprint of its own: a model must be fitted with it. OpenVINO computes it where
        the processor has 8-bit products (extra [openvino]); torch emulates it, slower than the network itself.

        Args:
            images: uint8 (n, H, W, 3), RGB, of the network's input size, such as it is to see later: the range of each
                convolution's input is found on them.

        Raises:
            DataError: another dtype or shape. ParameterError: a network without convolutions that BatchNorms follow, or
            one that `with_runtime` or `quantized` made.
        """
        _check_batch(images, "images")
        inputs = (prepare_input(images[i : i + 1], self.normalisation) for i in range(len(images)))
        with self._failures((images.shape[1], images.shape[2])):
            return self._with_ranges(lambda network: input_ranges(network, inputs), images.shape[1:3])

    def with_ranges(self, ranges: Any) -> Backbone:
        """`quantized` with the ranges that an earlier one found, its ``spec["int8"]``. Raises BackboneError as well."""
        return self._with_ranges(lambda _: ranges_from_json(ranges))

    def _with_ranges(self, find: Callable[[nn.Module], Ranges], size: tuple[int, int] | None = None) -> Backbone:
        if self.runtime != UNFOLDED:
            raise ParameterError(
                f"quantization: {self.name} is given with the runtime {self.runtime!r}; give the backbone that "
                "with_runtime was called on"
            )
        before_torch(torch.get_num_threads())
        assert isinstance(self._network, nn.Module)
        network = folded_to_quantize(copy.deepcopy(self._network).cpu(), self.name)
        ranges = find(network)
        # A network that is not our own may be folded wrongly.
        if size is not None and isinstance(self._network, HookedNetwork) and not agree(network, self._network, size):
            raise ParameterError(
                f"quantization: {self.name} has other features with folded BatchNorms; leave quantization out"
            )
        other = copy.copy(self)
        other.__dict__.pop("fingerprint", None)
        other._network = quantized(network, ranges).to(self.device)
        other.spec = {**self.spec, INT8: {name: list(ends) for name, ends in ranges.items()}}
        return other

    def extract(self, batch: UInt8Array, *, precision: str = "float32") -> list[torch.Tensor]:
        """Features of images.

        The network runs on one image at a time: torch's convolutions may sum in another order in another batch, and
        an image's features must have the same bits in any batch (at one number of torch threads).

        Args:
            batch: uint8 (B, H, W, 3), RGB, of the network's input size.
            precision: of products: "float32", "float16" or "bfloat16"; the last two change the features.

        Returns:
            For each level a float32 tensor (B, C_l, h_l, w_l), channels_last, on `device`, made in inference mode and
            not written to later.

        Raises:
            DataError: another dtype or shape. BackboneError: the network failed, or a level is not (B, C, h, w).
            ForkError: this process was forked after torch had worked with several threads.
        """
        _check_batch(batch, "batch")
        before_torch(torch.get_num_threads())
        typed = typed_errors(str(self.device)) if self.device.type != "cpu" else nullcontext()
        with torch.inference_mode(), typed:
            x = prepare_input(batch, self.normalisation, self.device)
            images = [self.run(x[i : i + 1], precision) for i in range(len(batch))]
            if len(images) == 1:
                return images[0]
            return [
                torch.cat(parts).contiguous(memory_format=torch.channels_last) for parts in zip(*images, strict=True)
            ]

    def run(self, x: torch.Tensor, precision: str = "float32") -> list[torch.Tensor]:
        """`extract` for a prepared input on ``device``, float32 (B, 3, H, W), normalised; the batch as a whole."""
        before_torch(torch.get_num_threads())
        half = _AUTOCAST[precision]
        flags: Any = nullcontext()
        if self.device.type == "cuda":  # float32 without TF32, and algorithms that repeat their bits
            flags = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
        with self._failures((int(x.shape[2]), int(x.shape[3]))):
            if isinstance(self._network, ExportedNetwork):
                outputs = self._network(x, precision)
            else:
                with flags, torch.autocast(self.device.type, dtype=half, enabled=half is not None):
                    outputs = self._network(x)
        for level, output in zip(self.levels, outputs, strict=True):
            if output.ndim != 4 or len(output) != len(x):
                raise BackboneError(
                    f"backbone: level {level!r} of {self.name} has shape {tuple(output.shape)}; give levels of shape "
                    "(B, C, h, w)"
                )
        return [output.to(torch.float32).contiguous(memory_format=torch.channels_last) for output in outputs]

    @contextmanager
    def _failures(self, size: tuple[int, int]) -> Iterator[None]:
        """What a network raises on an input of a size becomes a BackboneError, or a GPU's."""
        try:
            yield
        except (RuntimeError, ValueError, TypeError, AssertionError) as error:
            if isinstance(error, InReachError):
                raise
            failed = _gpu_failure(error, self.device)
            if failed is not None:
                raise failed from error
            raise BackboneError(
                f"backbone: {self.name} failed on an input of {size[0]}x{size[1]} pixels ({error}); try another "
                "image_size"
            ) from error

    def winograd_share(self, size: tuple[int, int]) -> float:
        """Share of the multiplications for an input of a size that Winograd's algorithm does (runtime "torch")."""
        if not isinstance(self._network, nn.Module) or self.device.type != "cpu":
            return 0.0
        before_torch(torch.get_num_threads())
        with self._failures(size):
            return winograd_share(self._network, torch.zeros(1, 3, *size).contiguous(memory_format=torch.channels_last))

    def level_shapes(self, height: int, width: int) -> list[tuple[int, int, int]]:
        """(C_l, h_l, w_l) of each level for that input size, found by running a black image."""
        black = np.zeros((1, height, width, 3), np.uint8)
        return [(out.shape[1], out.shape[2], out.shape[3]) for out in self.extract(black)]

    @cached_property
    def fingerprint(self) -> str:
        """sha256, hex, of the name, dtype, shape and bytes of every weight up to the last level, in name order, of the
        levels' names and the normalisation. Equal fingerprints mean equal features on one machine.
        """
        digest = hashlib.sha256()
        assert isinstance(self._network, nn.Module)  # `with_runtime` keeps what was computed before
        state = self._network.state_dict()
        for key in sorted(state):
            if key.endswith("num_batches_tracked"):
                continue  # a counter of training, without effect on outputs
            tensor = state[key].detach().cpu().contiguous()
            digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
        tail = {"levels": list(self.levels), "normalisation": self.normalisation.to_json()}
        if INT8 in self.spec:
            tail[INT8] = self.spec[INT8]
        digest.update(json.dumps(tail, sort_keys=True).encode())
        return digest.hexdigest()

    def __repr__(self) -> str:
        return (
            f"Backbone({self.name!r}, {len(self.levels)} levels, device={str(self.device)!r}, runtime={self.runtime!r})"
        )


def _check_batch(batch: UInt8Array, name: str) -> None:
    """Raises DataError, which begins with ``name``, if a batch is not uint8 (B, H, W, 3), RGB."""
    if batch.dtype != np.uint8 or batch.ndim != 4 or batch.shape[3] != 3 or 0 in batch.shape:
        raise DataError(f"{name}: expected uint8 (B, H, W, 3), got {batch.dtype} {batch.shape}")


def _gpu_failure(error: Exception, device: str | torch.device) -> GpuError | None:
    """The error for a GPU that failed or is full; None for an error of the network itself."""
    # By name: torch 2.1 does not have all of them.
    of_gpu = type(error).__name__ in ("OutOfMemoryError", "AcceleratorError") or "CUDA error" in str(error)
    return as_gpu_error(error, str(device)) if of_gpu else None


def prepare_input(batch: UInt8Array, normalisation: Normalisation, device: torch.device | str = "cpu") -> torch.Tensor:
    """uint8 (B, H, W, 3) RGB to normalised float32 (B, 3, H, W), channels_last, on `device`.

    (v * scale - mean) / std is computed as (v - mean / scale) / (std / scale), in place, over whole rows: one pass
    less, and a row of interleaved colours vectorises better than single pixels.
    """
    count, height, width, _ = batch.shape
    order = -1 if normalisation.channel_order == "BGR" else 1
    pixels = torch.from_numpy(np.require(batch[..., ::order], requirements=["C", "W"])).to(device)
    shift = torch.tensor([m / normalisation.scale for m in normalisation.mean], dtype=torch.float32, device=device)
    spread = torch.tensor([s / normalisation.scale for s in normalisation.std], dtype=torch.float32, device=device)
    x = pixels.view(count * height, width * 3).to(torch.float32)
    x.sub_(shift.repeat(width)).div_(spread.repeat(width))
    return x.view(count, height, width, 3).permute(0, 3, 1, 2)


def cut_network(definition: BackboneDefinition, levels: tuple[str, ...]) -> nn.Module:
    """A network from the normalised (B, 3, H, W) input to a list of `levels`, which computes nothing after the last."""
    module = definition.module
    if isinstance(module, EfficientNetLite2):
        return CutNetwork(module, STEM_NAMES, BLOCK_NAMES, levels)
    return cut_resnet(module, levels) or HookedNetwork(module, levels, definition.name)
