"""A process of its own for each party: memory is counted apart, and parties still take turns.

A child prints a line of JSON when it is ready and one for each line that it reads. What libraries print goes to
standard error, so that it cannot garble the talk.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TextIO, cast

from . import ROOT


class Child:
    """One running child; `told` is what it said last.

    Args:
        module: run as ``python -m module``.
        arguments: its command line.
        python: another environment's interpreter; this one by default.
    """

    def __init__(self, module: str, arguments: Sequence[object], python: Path | None = None) -> None:
        command = [str(python or sys.executable), "-m", module, *map(str, arguments)]
        self._process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._name = f"{module} {arguments[0] if arguments else ''}".strip()
        self.told: dict[str, Any] = {}
        self._read()

    def ask(self) -> dict[str, Any]:
        """Has it do its work once more."""
        pipe = cast(TextIO, self._process.stdin)
        pipe.write("go\n")
        pipe.flush()
        return self._read()

    def _read(self) -> dict[str, Any]:
        line = cast(TextIO, self._process.stdout).readline()
        if not line:
            code = self._process.wait()
            raise RuntimeError(f"{self._name} ended with exit code {code}; its last words are above")
        self.told = dict(json.loads(line))
        return self.told

    def close(self) -> None:
        """Lets it end."""
        cast(TextIO, self._process.stdin).close()
        cast(TextIO, self._process.stdout).close()
        self._process.wait()

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def speaker() -> Callable[[dict[str, Any]], None]:
    """For the child: what tells the parent something. From here on prints go to standard error."""
    out = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def tell(what: dict[str, Any]) -> None:
        out.write(json.dumps(what) + "\n")
        out.flush()

    return tell
