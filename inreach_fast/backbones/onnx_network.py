"""The network by ONNX Runtime, on the CPU."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import RuntimeUnavailableError
from ..system.interrupts import interrupts_kept
from .exported_network import ExportedNetwork, Levels

_OPSET = 17


class OnnxNetwork(ExportedNetwork):
    """See `ExportedNetwork`."""

    runtime = "onnxruntime"

    def versions(self) -> dict[str, str]:
        onnx, onnxruntime = _packages()
        return {"onnx": str(onnx.__version__), "onnxruntime": str(onnxruntime.__version__)}

    def write(self, network: nn.Module, example: torch.Tensor, folder: Path) -> None:
        export: Any = torch.onnx.export
        outputs = [f"level_{i}" for i in range(len(network(example)))]
        # By TorchScript, which takes networks with hooks as well.
        older = {"dynamo": False} if "dynamo" in inspect.signature(export).parameters else {}
        path = str(folder / "network.onnx")
        export(network, (example,), path, input_names=["image"], output_names=outputs, opset_version=_OPSET, **older)

    def open(self, folder: Path, threads: int, precision: str) -> Callable[[torch.Tensor], Levels]:
        _, runtime = _packages()
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.add_session_config_entry("session.force_spinning_stop", "1")  # between images no thread burns a core
        session = runtime.InferenceSession(str(folder / "network.onnx"), options, providers=["CPUExecutionProvider"])
        (source,), outputs = session.get_inputs(), session.get_outputs()

        def compute(pixels: torch.Tensor) -> Levels:
            levels = [torch.empty(tuple(output.shape)) for output in outputs]
            binding = session.io_binding()
            _bind(binding.bind_input, source.name, pixels)
            for output, level in zip(outputs, levels, strict=True):
                _bind(binding.bind_output, output.name, level)
            session.run_with_iobinding(binding)
            return levels

        return compute


def _bind(bind: Any, name: str, values: torch.Tensor) -> None:
    bind(name, "cpu", 0, "float32", tuple(values.shape), values.data_ptr())


def _packages() -> tuple[Any, Any]:
    try:
        with interrupts_kept():
            import onnx
            import onnxruntime
    except ImportError as error:
        raise RuntimeUnavailableError(
            f"backbone_runtime: {error.name or 'onnxruntime'} is not installed; pip install 'inreach_fast[onnx]', or "
            'choose backbone_runtime="torch"'
        ) from None
    return onnx, onnxruntime
