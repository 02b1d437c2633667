"""Where the kernels' source lies, and what nvcc made of it."""

from __future__ import annotations

import re
from pathlib import Path

from ...errors import GpuUnavailableError

_HERE = Path(__file__).resolve().parent
# Beside this file in an installed package; in csrc of a source tree, which is looked at first.
_FOLDERS = (_HERE.parents[2] / "csrc" / "cuda" / "kernels", _HERE / "source")
_FATBIN = _HERE.parents[1] / "_cuda.fatbin"

_INCLUDE = re.compile(r'#include "([\w.]+)"')

# What NVRTC is told: no warning is suppressed, lines can be told in compute-sanitizer and Nsight.
NVRTC_OPTIONS = ("-std=c++17", "-lineinfo")


def source_folder() -> Path:
    """The folder with ``all.cuh``.

    Raises:
        GpuUnavailableError: the package was installed without it.
    """
    for folder in _FOLDERS:
        if (folder / "all.cuh").is_file():
            return folder
    raise GpuUnavailableError("the kernels' source (all.cuh) is missing from this installation; install it again")


def translation_unit() -> str:
    """All of the kernels' source as one text, for NVRTC.

    Includes are resolved here, since CuPy keeps compiled kernels by their text: with ``#include`` left in it, a new
    version of the package would run an old one's kernels.
    """
    folder = source_folder()
    done: set[str] = set()

    def lines_of(name: str) -> list[str]:
        if name in done:  # every file says #pragma once
            return []
        done.add(name)
        found = [f'#line 1 "{name}"']
        for number, line in enumerate((folder / name).read_text(encoding="utf-8").splitlines(), start=1):
            included = _INCLUDE.fullmatch(line.strip())
            if included:
                found += [*lines_of(included[1]), f'#line {number + 1} "{name}"']
            elif line.strip() != "#pragma once":
                found.append(line)
        return found

    return "\n".join(lines_of("all.cuh")) + "\n"


def fatbin() -> bytes:
    """The kernels as nvcc compiled them for the extension.

    Raises:
        GpuUnavailableError: they are not there.
    """
    try:
        return _FATBIN.read_bytes()
    except OSError as error:
        raise GpuUnavailableError(
            f"_cuda.fatbin cannot be read ({error.strerror}); build the package where nvcc is found, or take backend='cupy'"
        ) from error
