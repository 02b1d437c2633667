"""Builds the stand-in for the driver, and the extension `inreach_fast._cuda`, once for each content."""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import os
import subprocess
import sysconfig
import tempfile
from functools import cache
from pathlib import Path
from types import ModuleType

import cuda_host.build

HERE = Path(__file__).resolve().parent
LAUNCH = HERE.parents[1] / "csrc" / "cuda" / "launch"
_FLAGS = ["-std=c++17", "-O1", "-fPIC", "-shared", "-fvisibility=hidden", "-Wall", "-Wextra", "-Werror"]


@cache
def fake_driver() -> Path:
    """The stand-in for libcuda."""
    return _built([HERE / "libcuda.cpp"], [], "libcuda.so")


@cache
def extension() -> Path:
    """The extension as CMake builds it, without kernels."""
    import pybind11

    sources = [LAUNCH / name for name in ("driver.cpp", "gpu.cpp", "module.cpp")]
    includes = [f"-isystem{pybind11.get_include()}", f"-isystem{sysconfig.get_path('include')}"]
    return _built(sources, includes, "_cuda" + str(sysconfig.get_config_var("EXT_SUFFIX")))


def load_extension(path: Path) -> ModuleType:
    """A module of its own, beside one that may be installed."""
    spec = importlib.util.spec_from_file_location("inreach_fast._cuda", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def open_driver(gpus: int = 1, version: int = 13000) -> ctypes.CDLL:
    """The stand-in, with so many GPUs and nothing failing."""
    library = ctypes.CDLL(str(fake_driver()))
    library.fake_message.restype = ctypes.c_char_p
    library.fake_used.restype = ctypes.c_size_t
    library.fake_limit.argtypes = [ctypes.c_size_t]
    library.fake_host_memory.argtypes = [ctypes.c_bool, ctypes.c_bool]
    executor = str(cuda_host.build.library()).encode()
    assert library.fake_open(executor, gpus, version) == 0
    library.fake_limit(1 << 32)
    return library


def _built(sources: list[Path], includes: list[str], name: str) -> Path:
    inputs = sorted({*sources, *sources[0].parent.glob("*.h")})
    digest = hashlib.sha256("\n".join([*_FLAGS, *includes]).encode())
    for path in inputs:
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    folder = Path(tempfile.gettempdir()) / f"inreach-cuda-host-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    target = folder / digest.hexdigest()[:24] / name
    target.parent.mkdir(exist_ok=True)
    with cuda_host.build.built_once(target) as missing:
        if missing:
            scratch = target.with_name(f"{name}.tmp")
            command = [str(cuda_host.build.compiler()), *_FLAGS, *includes, *map(str, sources), "-ldl"]
            done = subprocess.run([*command, "-o", str(scratch)], capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            scratch.replace(target)
    return target
