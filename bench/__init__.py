"""Benchmarks against named peers: ``python -m bench`` from the root of the repository (bench/README.md).

The package of the source tree is measured if its extension was built in place (`make dev`), else the installed one.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
"""Root of the repository."""


def _prefer_the_compiled_package() -> None:
    # `python -m` puts the repository first on the path. Without a compiled extension, its inreach_fast would hide the
    # installed one, and a slower backend would be measured without a warning.
    package = ROOT / "inreach_fast"
    if any(package.glob("_core*.so")) or any(package.glob("_core*.pyd")):
        return
    root = [entry for entry in sys.path if Path(entry or ".").resolve() == ROOT]
    sys.path[:] = [entry for entry in sys.path if entry not in root] + root


_prefer_the_compiled_package()
