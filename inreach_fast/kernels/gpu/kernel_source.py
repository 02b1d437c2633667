"""The CUDA source of the kernels: where it is, and all of it as one text, as NVRTC takes it."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from ...errors import BackendError

# In the source tree, and where the package is installed (CMakeLists.txt).
_FOLDERS = (
    Path(__file__).resolve().parents[3] / "csrc" / "cuda" / "kernels",
    Path(__file__).resolve().parent / "cuda_source",
)
_INCLUDE = re.compile(r'^#include "(\w+\.cuh)"$', re.MULTILINE)


def kernel_folder() -> Path:
    """The folder of the .cuh files.

    Raises:
        BackendError: they are not installed.
    """
    for folder in _FOLDERS:
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
