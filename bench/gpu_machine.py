"""The GPU that is measured, and how to wait for it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from typing import Any

from inreach_fast import kernels


class Gpu:
    """A torch device.

    Args:
        device: "cuda"; the tests use "cpu", to run every line of the cases without a GPU, and keep no figures.
    """

    def __init__(self, device: str = "cuda") -> None:
        self.device = device

    def wait(self) -> None:
        """Wait until all enqueued work is done."""
        if self.device != "cpu":
            import torch

            torch.cuda.synchronize()

    def waited(self, work: Callable[[], Any]) -> Callable[[], None]:
        """``work``, followed by `wait`."""

        def run_and_wait() -> None:
            work()
            self.wait()

        return run_and_wait

    def facts(self) -> dict[str, Any]:
        """Name, compute capability, memory, driver, and the backend that serves the GPU."""
        if self.device == "cpu":
            return {"gpu": "none"}
        import torch

        found = torch.cuda.get_device_properties(torch.cuda.current_device())
        return {
            "gpu": found.name,
            "compute capability": f"{found.major}.{found.minor}",
            "memory": f"{found.total_memory / 1e9:.0f} GB",
            "driver": _driver(),
            "CUDA of torch": torch.version.cuda,
            "backend": kernels.backend_for("auto", "cuda"),
        }


def why_not() -> str | None:
    """Why no GPU can be measured here; None if one can."""
    import torch

    if not torch.cuda.is_available():
        return "no CUDA device (or a torch without CUDA)"
    if not {"cuda", "cupy"} & set(kernels.available_backends()):
        return "neither inreach_fast._cuda nor CuPy is installed"
    return None


def _driver() -> str:
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.strip().splitlines()[0] if done.stdout.strip() else "unknown"
