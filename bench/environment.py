"""Where a measurement was made: machine, versions, commit; and an environment in which the peers run at full speed.

No path and no host name is recorded, since results are published.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from importlib import metadata
from typing import Any

from . import ROOT

RELAUNCHED = "INREACH_BENCH_RELAUNCHED"
BLAS_NOTE = (
    "Environment variables that pin OpenBLAS' kernel are dropped. In their place OPENBLAS_CORETYPE names the "
    "processor's widest instruction set, because an OpenBLAS older than the processor (faiss' wheel carries "
    "one) falls back to SSE2 kernels, several times slower, and would flatter us."
)
_FLAGS_AVX2 = {"avx2", "fma"}
_FLAGS_AVX512 = {"avx512f", "avx512bw", "avx512vl", "avx512dq"}
# What keeps each peer to an instruction set of ours. Our "scalar" is compiled for SSE2, the least that x86-64 has; the
# peers may use SSE4.2.
_LIMITS = {
    "scalar": ("Nehalem", "NONE", "default", "SSE41", "SSE4_2"),
    "avx2": ("Haswell", "AVX2", "avx2", "AVX2", "AVX2"),
    "avx512": ("SkylakeX", "AVX512", "avx512", "AVX512_CORE", "AVX512"),
    "avx512vnni": ("SkylakeX", "AVX512", "avx512", "AVX512_CORE_VNNI", "AVX512"),
}
_LIMIT_VARIABLES = (
    "OPENBLAS_CORETYPE",
    "FAISS_SIMD_LEVEL",
    "ATEN_CPU_CAPABILITY",
    "ONEDNN_MAX_CPU_ISA",
    "MKL_ENABLE_INSTRUCTIONS",
)
_PACKAGES = (
    *("numpy", "scipy", "torch", "torchvision", "faiss-cpu", "scikit-learn", "scikit-image"),
    *("openvino", "onnxruntime"),
)


def cpu_fields() -> dict[str, str]:
    """The first processor's lines of /proc/cpuinfo; empty if there is none."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            first = file.read().split("\n\n")[0]
    except OSError:
        return {}
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def instruction_sets() -> list[str]:
    """Names of the instruction sets to which this machine can limit ours and the peers alike, the widest first."""
    from inreach_fast import kernels

    if "native" not in kernels.available_backends():
        return []
    from inreach_fast import _core

    widest, *others = _core.isa_levels()
    return [widest, *others] if widest in _LIMITS else [widest]


def peer_environment(
    env: Mapping[str, str], flags: set[str], threads: int | None, isa: str | None = None
) -> dict[str, str]:
    """The environment for the peers, made from ``env``, the processor's feature ``flags`` and a limit for all."""
    clean = {name: value for name, value in env.items() if not name.startswith("OPENBLAS_")}
    if isa is not None:
        clean["INREACH_ISA"] = isa
        clean |= dict(zip(_LIMIT_VARIABLES, _LIMITS.get(isa, ()), strict=False))
    elif flags >= _FLAGS_AVX512:
        clean["OPENBLAS_CORETYPE"] = "SkylakeX"
    elif flags >= _FLAGS_AVX2:
        clean["OPENBLAS_CORETYPE"] = "Haswell"
    if threads is not None:
        # One number for all: our threads, torch's and faiss's OpenMP, and every OpenBLAS.
        for name in ("INREACH_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
            clean[name] = str(threads)
    return clean


def relaunch(arguments: list[str], threads: int | None, isa: str | None = None) -> None:
    """Run the same command in `peer_environment`; returns if this process already has that environment."""
    if os.environ.get(RELAUNCHED):
        return
    env = peer_environment(os.environ, set(cpu_fields().get("flags", "").split()), threads, isa)
    env[RELAUNCHED] = "1"
    sys.stdout.flush()
    os.execve(sys.executable, [sys.executable, "-m", "bench", *arguments], env)


def describe_machine() -> dict[str, Any]:
    """Processor, cores, threads and instruction set of every contestant, ready for JSON."""
    import torch
    from threadpoolctl import threadpool_info

    import inreach_fast
    from inreach_fast import kernels

    ours: dict[str, Any] = {"backends": list(kernels.available_backends())}
    if "native" in ours["backends"]:
        from inreach_fast import _core

        ours |= {"isa": _core.isa(), "isa_levels": _core.isa_levels(), "threads": inreach_fast.get_num_threads()}
    pools = [
        {
            "library": str(pool["prefix"]),
            "version": pool["version"],
            "kernel": pool.get("architecture"),
            "threads": pool["num_threads"],
        }
        for pool in threadpool_info()
    ]
    return {
        "cpu": cpu_fields().get("model name") or platform.processor() or platform.machine(),
        "cpu_family_model": f"{cpu_fields().get('cpu family', '?')}/{cpu_fields().get('model', '?')}",
        "architecture": platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gb": round(_total_memory() / 1e9, 1),
        "system": platform.system(),
        "inreach_fast": ours,
        "torch": {"threads": torch.get_num_threads(), "cpu_capability": torch.backends.cpu.get_cpu_capability()},
        "thread_pools": pools,
    }


def versions() -> dict[str, str]:
    """Versions of Python, of the package and of the peers."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    import inreach_fast

    return {"inreach_fast": inreach_fast.__version__, **found}


def commit() -> dict[str, Any]:
    """The measured commit, and whether the sources differ from it; empty without git."""

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        changed = git("status", "--porcelain", "--", "inreach_fast", "csrc", "bench/*.py")
        return {"id": git("rev-parse", "--short=12", "HEAD"), "modified": bool(changed)}
    except (OSError, subprocess.CalledProcessError):
        return {}


def _total_memory() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 0
