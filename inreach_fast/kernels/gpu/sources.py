"""Where the kernels' source is, and all of it as one text for a compiler at run time (NVRTC)."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from ...errors import BackendError

_PACKAGE = Path(__file__).resolve().parents[2]
_INCLUDE = re.compile(r'^#include "(\w+\.cuh)"$', re.MULTILINE)
# What a compiler at run time is given beside the source. No -use_fast_math: it would flush subnormals, and divide
# and take roots approximately. Fusing (-fmad) is on, as with nvcc: what must not be fused says so in the source.
NVRTC_OPTIONS = ("--std=c++17", "--ftz=false", "--prec-div=true", "--prec-sqrt=true")


def kernel_folder() -> Path:
    """The folder of the .cuh files: in the source tree, or installed with the package.

    Raises:
        BackendError: neither is there.
    """
    for folder in (_PACKAGE.parent / "csrc" / "cuda" / "kernels", _PACKAGE / "kernels" / "gpu" / "devices" / "source"):
        if (folder / "all.cuh").is_file():
            return folder
    raise BackendError("CUDA kernels: their source is not installed; reinstall the package (pip install .)")


@cache
def kernel_source() -> str:
    """all.cuh with every file in it, each once."""
    folder, seen = kernel_folder(), {"all.cuh"}

    def with_includes(name: str) -> str:
        def included(match: re.Match[str]) -> str:
            other = match.group(1)
            if other in seen:
                return ""
            seen.add(other)
            return with_includes(other)

        text = (folder / name).read_text(encoding="utf-8").replace("#pragma once\n", "")
        return _INCLUDE.sub(included, text)

    return with_includes("all.cuh")


def kernel_names() -> tuple[str, ...]:
    """The kernels by name, as the source declares them."""
    text = kernel_source()
    plain = re.findall(r"^INREACH(?:_TILE)?_KERNEL\([\w:]+\)\s*\n?(\w+)\(", text, re.MULTILINE)
    made = re.findall(r"^INREACH_(?:FRAME_ROWS|PROJECT_ROWS|REFINE|FILTER)\((\w+)", text, re.MULTILINE)
    return tuple(sorted({*plain, *made}))
