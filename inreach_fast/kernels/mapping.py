"""Whether an array lies in a mapped file, whose pages may be given back to the system and read again."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def is_file_mapping(array: npt.NDArray[Any]) -> bool:
    """True where ``array`` is a view of a shared file mapping (`numpy.memmap`, not copy-on-write).

    Of a copy-on-write mapping what was changed would be lost with its pages.
    """
    base: Any = array
    while isinstance(base, np.ndarray):
        if isinstance(base, np.memmap) and base.base is not None:
            return bool(base.mode != "c")  # a file without a name too
        base = base.base
    return False
