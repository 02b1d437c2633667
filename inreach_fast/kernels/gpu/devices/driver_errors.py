"""What a CUDA driver, CuPy and torch raise, as the package's own errors with their remedies.

The driver's and the runtime's codes have the same numbers in all that matter here.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

from ....errors import GpuError, GpuLostError, GpuMemoryError, GpuUnavailableError, InReachError

NO_DRIVER = -1
OLD_DRIVER = -2

_NO_DRIVER = frozenset({NO_DRIVER, 34})
_OLD_DRIVER = frozenset({OLD_DRIVER, 35, 36, 222, 225, 803, 804})
_NO_GPU = frozenset({100, 101})
_NO_IMAGE = frozenset({200, 209, 218, 221, 223})
_BUSY = frozenset({46, 102, 304, 802, 805, 806, 807, 808, 809, 810})
_MEMORY = frozenset({2})
_FAULT = frozenset({226, 700, 702, 710, 714, 715, 716, 717, 718, 719, 721})
_LOST = frozenset({4, 201, 214, 220, 709, 999})
_CAPTURE = frozenset(range(900, 909))

# torch's messages give the runtime's text; these are the beginnings of those that have a remedy of their own.
_TEXTS = (
    ("out of memory", 2),
    ("no CUDA-capable device", 100),
    ("driver version is insufficient", 35),
    ("driver on your system is too old", 35),
    ("no NVIDIA driver", NO_DRIVER),
    ("not compiled with CUDA", NO_DRIVER),
    ("no kernel image is available", 209),
    ("invalid device ordinal", 101),
    ("busy or unavailable", 46),
    ("illegal memory access", 700),
    ("misaligned address", 716),
    ("unspecified launch failure", 719),
    ("device-side assert", 710),
    ("uncorrectable ECC", 214),
    ("launch timed out", 702),
)


def gpu_error(code: int, name: str, *, call: str = "", gpu: str = "the GPU") -> GpuError:
    """The error for a driver's code.

    Args:
        code: CUresult or cudaError, or `NO_DRIVER`, `OLD_DRIVER`.
        name: the driver's own word, such as "CUDA_ERROR_OUT_OF_MEMORY".
        call: what was called. GPU: the GPU's name.
    """
    what = f"{name} ({code})" if code >= 0 else name
    said = f"{gpu}: {call + ': ' if call else ''}{what}"
    if code in _NO_DRIVER:
        return GpuUnavailableError(f"{said}; install NVIDIA's driver, or leave device and backend at the CPU's")
    if code in _OLD_DRIVER:
        return GpuUnavailableError(
            f"{said}: the driver is older than the CUDA that this was built with; update the driver, or take "
            "backend='cupy' with the CuPy of an older CUDA"
        )
    if code in _NO_GPU:
        return GpuUnavailableError(f"{said}: no such GPU; look at CUDA_VISIBLE_DEVICES and at what nvidia-smi lists")
    if code in _NO_IMAGE:
        return GpuUnavailableError(
            f"{said}: the kernels were not compiled for this GPU, or its driver cannot read them; take "
            "backend='cupy', which compiles them here, or build with CMAKE_CUDA_ARCHITECTURES naming the GPU's"
        )
    if code in _BUSY:
        return GpuUnavailableError(
            f"{said}: others hold the GPU (exclusive mode, MPS), or it may not be used; look at nvidia-smi, or take "
            "another with CUDA_VISIBLE_DEVICES"
        )
    if code in _MEMORY:
        return GpuMemoryError(
            f"{said}: the GPU's memory is full; end what else uses it, or leave it more room (set_gpu_memory_limit: "
            "banks are then streamed in pieces)"
        )
    if code in _FAULT:
        return GpuLostError(
            f"{said}: a kernel faulted, and this process has lost the GPU; start a new process. Please report it with "
            "what compute-sanitizer says (docs/gpu.md)"
        )
    if code in _LOST:
        return GpuLostError(f"{said}: the GPU or its driver failed; start a new process, and look at the system's log")
    if code in _CAPTURE:
        return GpuError(
            f"{said}: the call is not allowed while a CUDA graph is captured on this stream; call it once before, so "
            "that all is prepared, or outside the capture"
        )
    return GpuError(f"{said}; see docs/gpu.md")


def as_gpu_error(error: BaseException, gpu: str = "the GPU") -> GpuError | None:
    """The package's error for what the extension, CuPy or torch raised, or None where it is none of theirs."""
    kind = type(error)
    if isinstance(error, InReachError):
        return None
    if kind.__module__ == "inreach_fast._cuda" and len(error.args) == 3:
        code, name, call = error.args
        return gpu_error(int(code), str(name), call=str(call), gpu=gpu)
    if isinstance(error, ImportError):
        return GpuUnavailableError(f"{gpu}: {_first_line(error)}; install what is missing, or leave backend at 'auto'")
    if kind.__module__.startswith(("cupy", "cupy_backends")):
        return _from_cupy(error, gpu)
    code_of_torch = getattr(error, "error_code", None)  # torch.AcceleratorError
    if kind.__module__.startswith("torch") and isinstance(code_of_torch, int):
        return gpu_error(code_of_torch, _first_line(error), gpu=gpu)
    if kind.__name__ == "OutOfMemoryError":
        return gpu_error(2, _first_line(error), gpu=gpu)
    if isinstance(error, (RuntimeError, AssertionError)) and re.search(r"CUDA|NVIDIA|cuda", str(error)):
        text = str(error)
        for begin, code in _TEXTS:
            if begin in text:
                return gpu_error(code, _first_line(error), gpu=gpu)
        return GpuError(f"{gpu}: {_first_line(error)}; see docs/gpu.md")
    return None


def _from_cupy(error: BaseException, gpu: str) -> GpuError | None:
    status = getattr(error, "status", None)
    if type(error).__name__ == "OutOfMemoryError":
        return gpu_error(2, _first_line(error), gpu=gpu)
    if isinstance(status, int):
        return gpu_error(status, _first_line(error), gpu=gpu)
    return None


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


@contextlib.contextmanager
def typed_errors(gpu: str = "the GPU") -> Iterator[None]:
    """Turns what the extension, CuPy or torch raise of a GPU into the package's errors; all else passes."""
    try:
        yield
    except Exception as error:
        typed = as_gpu_error(error, gpu)
        if typed is None:
            raise
        raise typed from error
