"""A `Backbone` on a GPU with input and levels at fixed places, and the capture of work in a CUDA graph.

`captured` and `page_locked` are all of torch.cuda that predictions use besides streams (`slots`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from ...array_types import UInt8Array
from ...backbones import Backbone
from ...kernels.gpu.describe import LevelView

# Runs work once and returns what repeats it.
Capture = Callable[[Callable[[], object]], Callable[[], object]]


class TorchNetwork:
    """The backbone's levels of one input, on torch's current stream.

    Images are resized on the CPU, by Pillow as everywhere, and copied as bytes; they are normalised on the GPU, by the
    same float32 operations as on the CPU. ``size`` is (H, W) of the input.
    """

    def __init__(self, backbone: Backbone, size: tuple[int, int], precision: str = "float32") -> None:
        self._backbone, self._size, self._precision = backbone, size, precision
        device, normalisation = backbone.device, backbone.normalisation
        height, width = size
        self._staging = torch.empty((height, width * 3), dtype=torch.uint8, pin_memory=device.type == "cuda")
        self._pixels = torch.empty((height, width * 3), dtype=torch.uint8, device=device)
        self._reverse = normalisation.channel_order == "BGR"
        shift = torch.tensor([m / normalisation.scale for m in normalisation.mean], dtype=torch.float32)
        spread = torch.tensor([s / normalisation.scale for s in normalisation.std], dtype=torch.float32)
        self._shift, self._spread = (x.repeat(width).to(device) for x in (shift, spread))
        self._levels: list[torch.Tensor] = []

    def feed(self, image: UInt8Array) -> None:
        """Copies the next input, uint8 (H, W, 3), in the order of the stream; the previous image has been collected."""
        ordered = image[..., ::-1] if self._reverse else image
        self._staging.numpy()[:] = ordered.reshape(self._staging.shape)
        self._pixels.copy_(self._staging, non_blocking=True)

    def compute(self) -> Sequence[LevelView]:
        """Enqueues the network; its levels, (1, C, h, w) float32."""
        height, width = self._size
        with torch.inference_mode():
            x = self._pixels.to(torch.float32).sub_(self._shift).div_(self._spread)
            levels = self._backbone.run(x.view(1, height, width, 3).permute(0, 3, 1, 2), self._precision)
            if not self._levels:
                self._levels = levels
            else:  # every run leaves them in the same place
                for held, level in zip(self._levels, levels, strict=True):
                    held.copy_(level)
        return [LevelView(x.data_ptr(), x.stride(), tuple(x.shape)) for x in self._levels]


def repeat_calls(work: Callable[[], object]) -> Callable[[], object]:
    """The `Capture` without graphs: the calls themselves."""
    work()
    return work


def captured(stream: Any) -> Capture:
    """`Capture` by CUDA graphs on a torch stream."""

    def capture(work: Callable[[], object]) -> Callable[[], object]:
        graph = torch.cuda.CUDAGraph()
        # Other threads may use CUDA meanwhile: the reading thread of a stream, other models.
        with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
            work()
        replay: Callable[[], object] = graph.replay
        return replay

    return capture


def page_locked(nbytes: int) -> UInt8Array:
    """Host memory that a GPU can copy to while the CPU goes on."""
    return torch.empty(nbytes, dtype=torch.uint8, pin_memory=True).numpy()
