"""Compiles the kernels for a GPU with NVRTC, through CuPy's binding of it, and caches the result on disk.

Not through ``cupy.RawModule``: it appends ``-ftz=true`` to every list of options (cupy issue #9576). That flushes
subnormal numbers to zero, and answers would change.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from ....errors import BackendError, GpuUnavailableError

# No -use_fast_math: it would flush subnormals, and divide and take roots approximately. Fusing (-fmad) is on, as with
# nvcc: the source itself says what must not be fused.
NVRTC_OPTIONS = ("--std=c++17", "--ftz=false", "--prec-div=true", "--prec-sqrt=true")
# In the source tree, and where the package is installed (CMakeLists.txt).
_FOLDERS = (
    Path(__file__).resolve().parents[4] / "csrc" / "cuda" / "kernels",
    Path(__file__).resolve().parents[1] / "cuda_source",
)
_INCLUDE = re.compile(r'^#include "(\w+\.cuh)"$', re.MULTILINE)


def kernel_folder() -> Path:
    """The folder of the kernels' source (.cuh); BackendError where it is not installed."""
    for folder in _FOLDERS:
        if (folder / "all.cuh").is_file():
            return folder
    raise BackendError("CUDA kernels: their source is not installed; reinstall the package (pip install .)")


@cache
def kernel_source() -> str:
    """The kernels' source as one text: all.cuh with every file in it, each once."""
    folder = kernel_folder()
    seen: set[str] = set()

    def with_includes(name: str) -> str:
        if name in seen:
            return ""
        seen.add(name)
        text = (folder / name).read_text(encoding="utf-8").replace("#pragma once\n", "")
        return _INCLUDE.sub(lambda match: with_includes(match[1]), text)

    return with_includes("all.cuh")


def compiled_kernels(nvrtc: Any, compute_capability: tuple[int, int]) -> bytes:
    """Machine code for the GPU from ``cupy.cuda.nvrtc``, or PTX where NVRTC is older than the GPU.

    Raises:
        GpuUnavailableError: NVRTC is missing, or does not compile the kernels.
    """
    try:
        version = tuple(nvrtc.getVersion())
        known = [int(n) for n in nvrtc.getSupportedArchs()]
    except Exception as error:  # the binding looks for the library at its first use
        raise GpuUnavailableError(
            f"NVRTC: cannot be used ({error}); install nvidia-cuda-nvrtc of the CUDA version that CuPy uses"
        ) from error
    wanted = 10 * compute_capability[0] + compute_capability[1]
    virtual = wanted not in known
    number = max((n for n in known if n <= wanted), default=min(known)) if virtual else wanted
    options = (*NVRTC_OPTIONS, f"--gpu-architecture={'compute' if virtual else 'sm'}_{number}")
    digest = hashlib.sha256("\n".join([kernel_source(), *options, str(version)]).encode()).hexdigest()
    folder = Path(os.environ.get("CUPY_CACHE_DIR") or Path.home() / ".cupy" / "kernel_cache")
    place = folder / f"inreach-{digest[:32]}"
    with contextlib.suppress(OSError):
        data = place.read_bytes()
        if data[:32] == hashlib.sha256(data[32:]).digest():
            return data[32:]
    made = _compiled(nvrtc, options, virtual)
    _keep(place, hashlib.sha256(made).digest() + made)
    return made


def _compiled(nvrtc: Any, options: tuple[str, ...], virtual: bool) -> bytes:
    program = nvrtc.createProgram(kernel_source(), "inreach_fast.cu", (), ())
    try:
        nvrtc.compileProgram(program, options)
        made: bytes = nvrtc.getPTX(program) if virtual else nvrtc.getCUBIN(program)
        return made
    except Exception as error:
        said = next((line for line in nvrtc.getProgramLog(program).splitlines() if "error" in line), str(error))
        raise GpuUnavailableError(
            f"NVRTC: cannot compile the kernels ({said}); update cupy and nvidia-cuda-nvrtc"
        ) from error
    finally:
        nvrtc.destroyProgram(program)


def _keep(place: Path, data: bytes) -> None:
    """Writes the file whole or not at all; if it cannot be written, the next process compiles again."""
    with contextlib.suppress(OSError):
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=place.parent) as folder:
            scratch = Path(folder) / place.name
            scratch.write_bytes(data)
            scratch.replace(place)
