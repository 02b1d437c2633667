"""A child process for each contestant: memory is measured separately, and contestants still take turns.

A child prints a line of JSON when it is ready, and one for each line that it reads. What libraries print goes to
standard error, so that it does not mix with the JSON.
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
    """A running child; `reply` is the last line that it sent.

    Args:
        module: run as ``python -m module``.
        arguments: its command line.
        python: another environment's interpreter; this one by default.
    """

    def __init__(self, module: str, arguments: Sequence[object], python: Path | None = None) -> None:
        command = [str(python or sys.executable), "-m", module, *map(str, arguments)]
        self._process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._name = f"{module} {arguments[0] if arguments else ''}".strip()
        self.reply: dict[str, Any] = {}
        self._read()

    def ask(self) -> dict[str, Any]:
        """Run its work once more."""
        pipe = cast(TextIO, self._process.stdin)
        pipe.write("go\n")
        pipe.flush()
        return self._read()

    def _read(self) -> dict[str, Any]:
        line = cast(TextIO, self._process.stdout).readline()
        if not line:
            code = self._process.wait()
            raise RuntimeError(f"{self._name} ended with exit code {code}; its last output is above")
        self.reply = dict(json.loads(line))
        return self.reply

    def close(self) -> None:
        """Let it end."""
        cast(TextIO, self._process.stdin).close()
        cast(TextIO, self._process.stdout).close()
        self._process.wait()

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def reply_channel() -> Callable[[dict[str, Any]], None]:
    """For the child: a function that sends the parent a line. From now on, prints go to standard error."""
    out = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def send(reply: dict[str, Any]) -> None:
        out.write(json.dumps(reply) + "\n")
        out.flush()

    return send
