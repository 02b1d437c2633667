"""What nvcc made of the kernels for the extension (their source: `inreach_fast.kernels.gpu.sources`)."""

from __future__ import annotations

from pathlib import Path

from ....errors import GpuUnavailableError

_FATBIN = Path(__file__).resolve().parents[3] / "_cuda.fatbin"


def fatbin() -> bytes:
    """The kernels as nvcc compiled them for the extension.

    Raises:
        GpuUnavailableError: they are not there.
    """
    try:
        return _FATBIN.read_bytes()
    except OSError as error:
        raise GpuUnavailableError(
            f"_cuda.fatbin cannot be read ({error.strerror}); build the package where nvcc is found, or take "
            "backend='cupy'"
        ) from error
