"""`inreach backends`: which kernels this machine can run, and how."""

from __future__ import annotations

import argparse
import platform
from contextlib import suppress
from typing import Any

import numpy

from ... import kernels
from ..._version import __version__
from ...system.threads import get_num_threads
from ..console import Console, format_table

DESCRIPTION = "Lists the kernel backends that this machine can run, fastest first, and what they run on."


def add_options(parser: argparse.ArgumentParser) -> None:
    """The command has no options of its own."""


def run(args: argparse.Namespace, console: Console) -> None:
    import torch

    backends = list(kernels.available_backends())
    native: dict[str, Any] | None = None
    with suppress(ImportError):
        from ... import _core

        native = {"isa": _core.isa(), "isas": _core.isa_levels(), "threads": get_num_threads()}
    versions = {
        "inreach_fast": __version__,
        "python": platform.python_version(),
        "numpy": numpy.__version__,
        "torch": str(torch.__version__),
    }
    machine, cuda = platform.machine(), bool(torch.cuda.is_available())
    console.record({"backends": backends, "native": native, "versions": versions, "machine": machine, "cuda": cuda})
    console.result(format_table(["backend", ""], [[name, "" if i else "auto"] for i, name in enumerate(backends)]))
    if native is None:
        console.note("native: the compiled extension is missing; `pip install .` builds it (needs a C++ compiler)")
    else:
        levels = " ".join(native["isas"])
        console.result(f"native: isa {native['isa']}, isas {levels}, threads {native['threads']}")
    console.result(", ".join(f"{name} {version}" for name, version in versions.items()))
    console.result(f"machine: {machine}, CUDA for torch: {'yes' if cuda else 'no'}")
