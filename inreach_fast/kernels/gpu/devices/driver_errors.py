"""Errors of the CUDA driver, of CuPy and of torch as the package's own errors, each with a remedy.

Driver and runtime number their codes alike wherever it matters here.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

from ....errors import GpuError, GpuLostError, GpuMemoryError, GpuUnavailableError, InReachError

NO_DRIVER = -1
OLD_DRIVER = -2

# The error, what its message says after the driver's own words, and the codes that mean it.
_ERRORS: tuple[tuple[type[GpuError], str, set[int]], ...] = (
    (GpuUnavailableError, "install NVIDIA's driver, or use the CPU for device and backend", {NO_DRIVER, 34}),
    (GpuUnavailableError, "the driver is older than the CUDA that this was built with: update the driver, or use "
     "backend='cupy' with the CuPy of an older CUDA", {OLD_DRIVER, 35, 36, 222, 225, 803, 804}),
    (GpuUnavailableError, "there is no such GPU: compare CUDA_VISIBLE_DEVICES with the list of nvidia-smi", {100, 101}),
    (GpuUnavailableError, "the kernels were not compiled for this GPU, or its driver cannot read them: use "
     "backend='cupy', which compiles them here, or build with CMAKE_CUDA_ARCHITECTURES naming the GPU's architecture",
     {200, 209, 218, 221, 223}),
    (GpuUnavailableError, "the GPU is in use by others (exclusive mode, MPS), or access is denied: see nvidia-smi, or "
     "choose another GPU with CUDA_VISIBLE_DEVICES", {46, 102, 304, 802, 805, 806, 807, 808, 809, 810}),
    (GpuMemoryError, "the GPU's memory is full: stop what else uses it, or leave it more room (set_gpu_memory_limit: "
     "banks are then streamed in pieces)", {2}),
    (GpuLostError, "a kernel faulted, and this process has lost the GPU: start a new process, and please report the "
     "fault with the output of compute-sanitizer (docs/gpu.md)",
     {226, 700, 702, 710, 714, 715, 716, 717, 718, 719, 721}),
    (GpuLostError, "the GPU or its driver failed: start a new process, and look at the system's log",
     {4, 201, 214, 220, 709, 999}),
    (GpuError, "the call is not allowed during the capture of a CUDA graph on this stream: call it once before the "
     "capture, so that everything is prepared, or outside of it", set(range(900, 909))),
    (GpuError, "see docs/gpu.md", set()),
)  # fmt: skip

# torch's messages quote the runtime's text. These texts have a remedy of their own.
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
    """The error for a driver's code (CUresult, cudaError, `NO_DRIVER` or `OLD_DRIVER`) of that name.

    ``call`` is the driver's function that failed.
    """
    what = f"{name} ({code})" if code >= 0 else name
    kind, remedy, _ = next((known for known in _ERRORS if code in known[2]), _ERRORS[-1])
    return kind(f"{gpu}: {call + ': ' if call else ''}{what}; {remedy}")


def as_gpu_error(error: BaseException, gpu: str = "the GPU") -> GpuError | None:
    """The package's error for what the extension, CuPy or torch raised; None for any other error."""
    kind, text = type(error), (str(error).splitlines() or [type(error).__name__])[0]
    if isinstance(error, InReachError):
        return None
    if kind.__module__ == "inreach_fast._cuda" and len(error.args) == 3:
        code, name, call = error.args
        return gpu_error(int(code), str(name), call=str(call), gpu=gpu)
    if isinstance(error, ImportError):
        return GpuUnavailableError(f"{gpu}: {text}; install what is missing, or leave backend at 'auto'")
    if kind.__name__ == "OutOfMemoryError":  # of torch and of CuPy
        return gpu_error(2, text, gpu=gpu)
    # torch.AcceleratorError; CuPy's errors of driver and runtime.
    for package, attribute in (("torch", "error_code"), ("cupy", "status")):
        code = getattr(error, attribute, None)
        if kind.__module__.startswith(package) and isinstance(code, int):
            return gpu_error(code, text, gpu=gpu)
    if isinstance(error, (RuntimeError, AssertionError)) and re.search(r"CUDA|NVIDIA|cuda", str(error)):
        known = next((code for begin, code in _TEXTS if begin in str(error)), None)
        return GpuError(f"{gpu}: {text}; see docs/gpu.md") if known is None else gpu_error(known, text, gpu=gpu)
    return None


@contextlib.contextmanager
def typed_errors(gpu: str = "the GPU") -> Iterator[None]:
    """Raises what the extension, CuPy or torch say of a GPU as the package's errors; other errors pass."""
    try:
        yield
    except Exception as error:
        typed = as_gpu_error(error, gpu)
        if typed is None:
            raise
        raise typed from error
