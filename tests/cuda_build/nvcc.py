"""nvcc's and ptxas's word on the kernels, for every architecture; kept by content, for it takes a minute."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import NamedTuple

from inreach_fast.kernels.gpu.devices import nvrtc
from inreach_fast.kernels.gpu.routes import FORMATS, TILES, Route

# `make cuda-check` compiles for every one of them (minutes), `make test` for the oldest and the newest.
EVERY_ARCHITECTURE = (75, 80, 86, 89, 90, 100, 120)
ARCHITECTURES = EVERY_ARCHITECTURE if os.environ.get("INREACH_CUDA_CHECK") else (75, 120)
FLAGS = ["-std=c++17", "-O3", "-Werror", "all-warnings", "-Xptxas", "-v", "-cubin"]


class Limits(NamedTuple):
    """Of a multiprocessor (CUDA programming guide, compute capabilities)."""

    threads: int
    blocks: int
    shared: int  # bytes
    reserved: int  # bytes of it that every block costs beside its own


LIMITS = {
    75: Limits(1024, 16, 64 << 10, 0),
    80: Limits(2048, 32, 164 << 10, 1 << 10),
    86: Limits(1536, 16, 100 << 10, 1 << 10),
    89: Limits(1536, 24, 100 << 10, 1 << 10),
    90: Limits(2048, 32, 228 << 10, 1 << 10),
    100: Limits(2048, 32, 228 << 10, 1 << 10),
    120: Limits(1536, 24, 100 << 10, 1 << 10),
}
REGISTERS = 65536
STATIC_SHARED = 48 << 10  # without asking for more


class Usage(NamedTuple):
    """What ptxas reports of one kernel."""

    registers: int
    shared: int
    spilled: int  # bytes of stores and loads
    stack: int


def compiler() -> str | None:
    """nvcc, or None where there is none."""
    return shutil.which("nvcc")


def threads_of(kernel: str) -> int:
    """Of a block."""
    tiles = {Route(form, tile).kernel: Route(form, tile).threads for form in FORMATS for tile in TILES}
    return tiles.get(kernel, 256)


def occupancy(kernel: str, usage: Usage, architecture: int) -> float:
    """Theoretical: resident threads as a share of the most that a multiprocessor holds."""
    limits, threads = LIMITS[architecture], threads_of(kernel)
    warps = threads // 32
    per_warp = -(-usage.registers * 32 // 256) * 256
    by_registers = REGISTERS // (per_warp * warps)
    by_shared = limits.shared // (usage.shared + limits.reserved) if usage.shared else limits.blocks
    return min(limits.blocks, limits.threads // threads, by_registers, by_shared) * threads / limits.threads


@cache
def reports() -> dict[int, dict[str, Usage]]:
    """For each architecture, each kernel's usage; compiled in parallel.

    Raises:
        AssertionError: an error or a warning, with nvcc's words.
    """
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(ARCHITECTURES, pool.map(_report, ARCHITECTURES), strict=True))


def _report(architecture: int) -> dict[str, Usage]:
    command = compiler()
    assert command is not None
    version = subprocess.run([command, "--version"], capture_output=True, text=True, check=True).stdout

    def compiled() -> str:
        with tempfile.TemporaryDirectory() as work:
            target = f"arch=compute_{architecture},code=sm_{architecture}"
            source = str(nvrtc.kernel_folder() / "all.cuh")
            out = str(Path(work) / "kernels.cubin")
            done = subprocess.run(
                [command, *FLAGS, "-gencode", target, "-x", "cu", source, "-o", out], capture_output=True, text=True
            )
        assert done.returncode == 0, f"sm_{architecture}:\n{done.stdout}{done.stderr}"
        return done.stderr

    return parsed(kept("\n".join([version, *FLAGS, str(architecture), nvrtc.kernel_source()]), compiled))


def kept(key: str, compiled: Callable[[], str]) -> str:
    """What a compiler gave for all that ``key`` says, from a file where it has been compiled before."""
    folder = Path(tempfile.gettempdir()) / f"inreach-ptxas-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    place = folder / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.txt"
    if not place.exists():
        text = compiled()
        with tempfile.TemporaryDirectory(dir=folder) as work:
            written = Path(work) / "report.txt"
            written.write_text(text)
            written.replace(place)
    return place.read_text()


def parsed(report: str) -> dict[str, Usage]:
    """ptxas -v to numbers."""
    result = {}
    for part in report.split("Compiling entry function ")[1:]:
        name = re.match(r"'(\w+)'", part)
        registers, shared = re.search(r"Used (\d+) registers", part), re.search(r"(\d+) bytes smem", part)
        memory = re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", part)
        assert name is not None, part
        assert registers is not None, part
        assert memory is not None, part
        stack, stores, loads = map(int, memory.groups())
        result[name.group(1)] = Usage(
            int(registers.group(1)), int(shared.group(1)) if shared else 0, stores + loads, stack
        )
    return result
