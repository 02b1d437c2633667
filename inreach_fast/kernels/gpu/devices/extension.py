"""GPUs through the extension `inreach_fast._cuda`, whose kernels nvcc compiled beforehand."""

from __future__ import annotations

from pathlib import Path

from ....errors import GpuUnavailableError
from .gpu import Gpu

_FATBIN = Path(__file__).resolve().parents[3] / "_cuda.fatbin"


def extension_gpu(ordinal: int) -> Gpu:
    """Opens the GPU of that number.

    Raises:
        GpuUnavailableError: the compiled kernels are missing. ImportError: the extension is. DriverError of the
        extension: the driver refuses.
    """
    from ...._cuda import Gpu as ExtensionGpu

    try:
        kernels = _FATBIN.read_bytes()
    except OSError as error:
        raise GpuUnavailableError(
            f"_cuda.fatbin: cannot be read ({error.strerror}); build the package where nvcc is found, or use "
            "backend='cupy'"
        ) from error
    return ExtensionGpu(ordinal, kernels)
