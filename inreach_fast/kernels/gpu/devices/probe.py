"""Whether there is a GPU, by the driver itself: without a context, and without importing torch or CuPy."""

from __future__ import annotations

import ctypes
import os
from functools import cache

from ....errors import GpuUnavailableError
from .driver_errors import NO_DRIVER, OLD_DRIVER, gpu_error

# CUDA 12.0: NVRTC 12, the oldest that compiles the kernels, needs it. Newer toolkits check the driver themselves.
LEAST_DRIVER = 12000


@cache
def _library(place: str) -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL(place)
    except OSError:
        return None


def gpu_count() -> int:
    """GPUs that this process may use, at least 1; GpuUnavailableError for no driver, one that is too old, or no GPU."""
    library = _library(os.environ.get("INREACH_LIBCUDA") or "libcuda.so.1")
    if library is None:
        raise gpu_error(NO_DRIVER, "no NVIDIA driver was found", call="libcuda.so.1")
    number = ctypes.c_int()
    for call, arguments in (
        ("cuInit", (ctypes.c_uint(0),)),
        ("cuDriverGetVersion", (ctypes.byref(number),)),
        ("cuDeviceGetCount", (ctypes.byref(number),)),
    ):
        code = getattr(library, call)(*arguments)
        if code:
            raise gpu_error(code, "the driver refused", call=call)
        if call == "cuDriverGetVersion" and number.value < LEAST_DRIVER:
            have = f"{number.value // 1000}.{number.value % 1000 // 10}"
            least = f"{LEAST_DRIVER // 1000}.{LEAST_DRIVER % 1000 // 10}"
            raise gpu_error(OLD_DRIVER, f"the driver supports CUDA {have}, at least {least} is needed", call=call)
    if number.value == 0:
        raise gpu_error(100, "no GPU", call="cuDeviceGetCount")
    return number.value


def has_gpu() -> bool:
    """Whether there is a GPU that this process may use."""
    try:
        return gpu_count() > 0
    except GpuUnavailableError:
        return False
