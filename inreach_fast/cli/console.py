"""Where the words go: results to stdout, everything else to stderr."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from .progress import Progress


class Console:
    """One command's output.

    `result` and `row` are what the user asked for and go to stdout; with `--json` only JSON goes there.
    `summary` is for the reader at the terminal: left out with `--json` and with `--quiet`.
    `note` goes to stderr: left out with `--quiet`.
    """

    def __init__(self, *, quiet: bool = False, json_output: bool = False, progress: bool | None = None) -> None:
        self.quiet = quiet
        self.json = json_output
        self._out: TextIO = sys.stdout
        self._err: TextIO = sys.stderr
        terminal = self._err.isatty()
        shown = (terminal if progress is None else progress) and not quiet
        self.progress: Progress | None = Progress(self._err, bars=terminal) if shown else None

    def result(self, text: str) -> None:
        """Text that was asked for; silent with `--json`, where `record` speaks."""
        if not self.json:
            self._write(self._out, text)

    def summary(self, text: str) -> None:
        """A closing word on stdout; silent with `--json` and `--quiet`."""
        if not (self.json or self.quiet):
            self._write(self._out, text)

    def record(self, value: Any) -> None:
        """The machine-readable result, one JSON document; silent without `--json`."""
        if self.json:
            self._write(self._out, json.dumps(jsonable(value), indent=2))

    def row(self, value: Any) -> None:
        """One JSON line, flushed, so that a reader at the end of a pipe has each result at once."""
        self._write(self._out, json.dumps(jsonable(value)))

    def note(self, text: str) -> None:
        """A remark on stderr; silent with `--quiet`."""
        if not self.quiet:
            self._write(self._err, text)

    def error(self, text: str) -> None:
        """An error, always printed, as one line on stderr."""
        self._write(self._err, f"inreach: error: {' '.join(text.split())}")

    def close(self) -> None:
        """End a running bar."""
        if self.progress is not None:
            self.progress.close()

    def _write(self, stream: TextIO, text: str) -> None:
        if self.progress is not None and stream.isatty():
            self.progress.close()
        # A file name may hold bytes that the terminal's encoding cannot say; that is no reason to die.
        encoding = stream.encoding or "utf-8"
        print(text.encode(encoding, "backslashreplace").decode(encoding), file=stream, flush=True)


def jsonable(value: Any) -> Any:
    """`value` in JSON's own types: NumPy, paths and mappings made plain; NaN and infinity become null."""
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return jsonable(value.tolist())
    if isinstance(value, (list, tuple, set, frozenset)):
        return [jsonable(item) for item in value]
    if isinstance(value, np.generic):
        return jsonable(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, (Path, os.PathLike)):
        return os.fspath(value)
    if value is None or isinstance(value, (str, int, bool)):
        return value
    return str(value)
