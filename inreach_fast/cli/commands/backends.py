"""`inreach backends`: which kernels this machine can run, and how."""

from __future__ import annotations

import argparse
import platform
import sys
from typing import TYPE_CHECKING, Any

from ... import kernels
from ..._version import __version__
from ...threads import get_num_threads
from ..console import Console
from ..exit_codes import SUCCESS
from ..options import common_options
from ..tables import format_table

if TYPE_CHECKING:
    from . import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    """Options of the command."""
    parser = subparsers.add_parser(
        "backends",
        parents=[common_options()],
        help="kernel backends of this machine",
        description="Shows the kernel backends that this machine can run, fastest first, and on what.",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, console: Console) -> int:
    """List the backends."""
    import numpy
    import torch

    record: dict[str, Any] = {
        "backends": list(kernels.available_backends()),
        "native": _native(),
        "versions": {
            "inreach_fast": __version__,
            "python": platform.python_version(),
            "numpy": numpy.__version__,
            "torch": str(torch.__version__),
        },
        "machine": platform.machine(),
        "cuda": bool(torch.cuda.is_available()),
    }
    console.record(record)
    rows = [[name, "auto" if number == 0 else ""] for number, name in enumerate(record["backends"])]
    console.result(format_table(["backend", ""], rows))
    native = record["native"]
    if native is None:
        console.note("The compiled extension is not there: `pip install .` builds it (needs a C++ compiler).")
    else:
        console.result("native: " + ", ".join(f"{key} {_words(value)}" for key, value in native.items()))
    console.result(", ".join(f"{name} {version}" for name, version in record["versions"].items()))
    console.result(f"machine: {record['machine']}, CUDA for torch: {'yes' if record['cuda'] else 'no'}")
    sys.stdout.flush()
    return SUCCESS


def _native() -> dict[str, Any] | None:
    """Facts about the compiled extension, or None where it is not there."""
    try:
        from ... import _core
    except ImportError:
        return None
    return {"isa": _core.isa(), "isas": _core.isa_levels(), "threads": get_num_threads()}


def _words(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
