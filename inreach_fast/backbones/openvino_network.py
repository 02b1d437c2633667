"""The network by OpenVINO, on the CPU."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import RuntimeUnavailableError
from ..system.interrupts import interrupts_kept
from .exported_network import ExportedNetwork, Levels
from .quantization import is_quantized

_USAGE_DATA = "openvino_telemetry"
_HINTS = {"float32": "f32", "bfloat16": "bf16"}


class OpenVinoNetwork(ExportedNetwork):
    """See `ExportedNetwork`."""

    runtime = "openvino"
    precisions = ("float32", "bfloat16")

    def versions(self) -> dict[str, str]:
        return {"openvino": str(_openvino().__version__)}

    def write(self, network: nn.Module, example: torch.Tensor, folder: Path) -> None:
        openvino = _openvino()
        model = openvino.convert_model(network, example_input=example, input=list(example.shape))
        try:
            openvino.save_model(model, folder / "network.xml", compress_to_fp16=False)
        except RuntimeError as error:
            raise OSError(str(error)) from error

    def open(self, folder: Path, threads: int, precision: str) -> Callable[[torch.Tensor], Levels]:
        openvino, core = _openvino(), _core()
        capabilities = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        if is_quantized(self.network) and "INT8" not in capabilities:
            raise RuntimeUnavailableError(
                "quantization: this processor has no 8-bit products for openvino; fit without quantization, or choose "
                'backbone_runtime="torch", which emulates them'
            )
        if precision == "bfloat16" and "BF16" not in capabilities:
            raise RuntimeUnavailableError(
                'precision: this processor has no bfloat16 for openvino; choose "float32", or backbone_runtime="torch"'
            )
        config = {
            "INFERENCE_PRECISION_HINT": _HINTS[precision],
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "ENABLE_CPU_PINNING": False,  # another program may be on the processor that a thread is pinned to
        }
        compiled = core.compile_model(folder / "network.xml", "CPU", config)
        shapes = [tuple(port.shape) for port in compiled.outputs]
        requests = threading.local()  # a request holds one image at a time

        def compute(pixels: torch.Tensor) -> Levels:
            request: Any = getattr(requests, "mine", None)
            if request is None:
                request = requests.mine = compiled.create_infer_request()
            levels = [torch.empty(shape) for shape in shapes]
            request.set_input_tensor(0, openvino.Tensor(pixels.numpy(), shared_memory=True))
            for i, level in enumerate(levels):
                request.set_output_tensor(i, openvino.Tensor(level.numpy(), shared_memory=True))
            request.infer()
            return levels

        return compute


@cache
def _core() -> Any:
    """OpenVINO's core of this process, which is never freed.

    Its CPU plugin gives the thread that loads it a stack for signal handlers, and when it is freed puts back the one
    that it had found. Of two plugins that overlap, the second would put back the first one's, which is gone by then,
    and the next signal, such as Ctrl-C, would end the process by a segmentation fault.
    """
    core = _openvino().Core()
    core.get_property("CPU", "FULL_DEVICE_NAME")  # loads the plugin
    return core


def _openvino() -> Any:
    # Importing OpenVINO would send usage data; without this package it takes a stub of its own instead.
    quiet = not {"openvino", _USAGE_DATA} & sys.modules.keys()
    try:
        if quiet:
            sys.modules[_USAGE_DATA] = None  # type: ignore[assignment]
        with interrupts_kept():
            import openvino
    except ImportError:
        raise RuntimeUnavailableError(
            "backbone_runtime: openvino is not installed; pip install 'inreach_fast[openvino]', or choose "
            'backbone_runtime="torch"'
        ) from None
    finally:
        if quiet:
            del sys.modules[_USAGE_DATA]
    return openvino
