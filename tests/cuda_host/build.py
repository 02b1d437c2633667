"""Builds the host executor: csrc/cuda/kernels compiled by g++ (tests/cuda_host/kernel_table.cpp) with what runs them
(executor.cpp), once for each content; a second time, where it is asked for, with what finds races (races.h)."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from inreach_fast.kernels.gpu.devices.nvrtc import kernel_source

HERE = Path(__file__).resolve().parent
KERNELS = HERE.parents[1] / "csrc" / "cuda" / "kernels"
# Sanitizers trap, and the executor says where. No fused multiply-add: the contract's separate roundings.
FLAGS = [
    *("-std=c++17", "-O3", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off", "-fno-math-errno"),
    *("-fno-strict-aliasing", "-U_FORTIFY_SOURCE"),
    *("-Wall", "-Wextra", "-Werror", "-Wno-unused-function", "-Wno-unknown-pragmas", "-Wno-clobbered"),
    "-fsanitize=bounds,alignment,shift,signed-integer-overflow,integer-divide-by-zero,float-cast-overflow,bool",
    "-fsanitize-undefined-trap-on-error",
]
# Every access of a kernel's is a call. Little is optimized, so that few accesses are merged, and none are made up.
RACE_FLAGS = ["-fsanitize=thread", "--param=tsan-distinguish-volatile=1", "-O1"]
_RACES = "-DINREACH_RACES"
NO_COMPILER = "no C++ compiler: the CUDA kernels were not run on the CPU"


def compiler() -> str | None:
    """The C++ compiler, or None where there is none."""
    return shutil.which(os.environ.get("CXX", "g++")) or shutil.which("c++")


@cache
def finds_races() -> bool:
    """Whether the compiler can build what finds races: GCC from version 11 can, which tells `volatile` accesses."""
    command = compiler()
    if command is None:
        return False
    arguments = [command, *RACE_FLAGS, "-x", "c++", "-fsyntax-only", "-"]
    text = "#if defined(__clang__) || __GNUC__ < 11\n#error\n#endif\n"
    done = subprocess.run(arguments, input=text, capture_output=True, text=True)
    return done.returncode == 0


@cache
def library(kernels: Path = KERNELS, *, races: bool = False) -> Path:
    """The shared library for the kernels in this folder, from the cache where it has been built before."""
    folders = {kernels, KERNELS}  # test kernels use portable.cuh as well
    sources = [p for folder in sorted(folders) for p in sorted(folder.glob("*.cuh"))]
    sources += sorted([*HERE.glob("*.cpp"), *HERE.glob("*.h")])
    digest = hashlib.sha256("\n".join([*FLAGS, *(RACE_FLAGS if races else [])]).encode())
    for source in sources:
        digest.update(source.name.encode() + b"\0" + source.read_bytes())
    folder = Path(tempfile.gettempdir()) / f"inreach-cuda-host-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    target = folder / f"{digest.hexdigest()[:24]}.so"
    with built_once(target) as missing, tempfile.TemporaryDirectory(dir=folder) as scratch:
        if not missing:
            return target
        work = Path(scratch)
        (work / "kernel_list.inc").write_text(_kernel_list(kernels))
        built, table = work / "executor.so", work / "kernel_table.o"
        flags = [*FLAGS, *([_RACES] if races else []), f"-I{HERE}"]
        includes = [f"-I{kernels}", f"-I{KERNELS}", f"-I{work}"]
        instrumented = RACE_FLAGS if races else []
        _run([*flags, *includes, *instrumented, "-c", str(HERE / "kernel_table.cpp"), "-o", str(table)])
        rest = ["executor.cpp", *(["races.cpp"] if races else [])]
        # Not with -fsanitize=thread, which would link the library whose functions races.cpp defines.
        _run([*flags, *(str(HERE / name) for name in rest), str(table), "-shared", "-o", str(built)])
        built.replace(target)
    return target


@contextmanager
def built_once(target: Path) -> Iterator[bool]:
    """Whether ``target`` is missing. Other processes that want it wait until this one has left."""
    import fcntl

    if target.exists():
        yield False
        return
    with target.with_name(f"{target.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield not target.exists()


def _kernel_list(kernels: Path) -> str:
    """One entry for each `extern "C"` function of all.cuh, found after preprocessing: macros make some of them."""
    options = ["-std=c++17", "-E", "-P", f"-I{KERNELS}", "-include", str(HERE / "host_cuda.h"), "-x", "c++"]
    text = _run([*options, str(kernels / "all.cuh")])
    names = re.findall(r'extern "C"\s+void\s+(\w+)\s*\(', text)
    assert len(names) == len(set(names)) > 0
    return "".join(f'    kernel("{name}", {name}),\n' for name in names)


def _run(arguments: list[str]) -> str:
    command = compiler()
    assert command is not None
    done = subprocess.run([command, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def kernel_names() -> tuple[str, ...]:
    """The kernels by name, as the source declares them."""
    text = kernel_source()
    plain = re.findall(r"^INREACH(?:_TILE)?_KERNEL\([\w:]+\)\s*\n?(\w+)\(", text, re.MULTILINE)
    made = re.findall(r"^INREACH_(?:FRAME_ROWS|PROJECT_ROWS|REFINE|FILTER)\((\w+)", text, re.MULTILINE)
    return tuple(sorted({*plain, *made}))
