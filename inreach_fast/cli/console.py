"""The output of a command: results on stdout, remarks and progress on stderr; JSON, tables and numbers."""

from __future__ import annotations

import errno
import json
import logging
import math
import os
import re
import sys
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

import numpy as np

from ..errors import PassedOverWarning, PixelRangeWarning

OUR_WARNINGS = (PassedOverWarning, PixelRangeWarning)


class Console:
    """Where a command writes.

    `result` and `row` are what the user asked for and go to stdout; with `--json` only JSON goes there: `record` in
    place of `result`. `summary`, closing lines, is left out with `--json` and with `--quiet`. `note`, remarks, goes to
    stderr, and is left out with `--quiet`.
    """

    def __init__(self, *, quiet: bool = False, json_output: bool = False, progress: bool | None = None) -> None:
        self.quiet, self.json = quiet, json_output
        self._out: TextIO = sys.stdout
        self._err: TextIO = sys.stderr
        terminal = self._err.isatty()
        shown = (terminal if progress is None else progress) and not quiet
        self.progress = Progress(self._err, bars=terminal, shown=shown)

    def result(self, text: str) -> None:
        if not self.json:
            self._write(self._out, text)

    def summary(self, text: str) -> None:
        if not (self.json or self.quiet):
            self._write(self._out, text)

    def record(self, value: Any) -> None:
        """The result as one JSON document; silent without `--json`."""
        if self.json:
            self._write(self._out, json.dumps(jsonable(value), indent=2))

    def row(self, value: Any) -> None:
        """One line of JSON, flushed, so that the reader of a pipe has each result at once."""
        self._write(self._out, json.dumps(jsonable(value)))

    def note(self, text: str) -> None:
        if not self.quiet:
            self._write(self._err, text)

    def error(self, text: str) -> None:
        """An error, always printed, as one line on stderr."""
        self._write(self._err, f"inreach: error: {' '.join(text.split())}")

    @contextmanager
    def log_notes(self) -> Iterator[None]:
        """Print what the package logs (a warning about a model, a cluster joined, a worker lost) as notes."""
        log, handler = logging.getLogger("inreach_fast"), logging.Handler()
        handler.emit = lambda record: self.note(f"inreach: {record.getMessage()}")  # type: ignore[method-assign]
        before = log.level, log.propagate
        log.addHandler(handler)
        log.setLevel(logging.INFO)
        log.propagate = False
        try:
            yield
        finally:
            log.removeHandler(handler)
            log.setLevel(before[0])
            log.propagate = before[1]

    @contextmanager
    def warning_notes(self) -> Iterator[None]:
        """Print the package's warnings as notes."""
        with warnings.catch_warnings():
            show = warnings.showwarning

            def note(message: Any, category: type[Warning], *place: Any, **options: Any) -> None:
                if issubclass(category, OUR_WARNINGS):
                    self.note(f"inreach: {message}")
                else:
                    show(message, category, *place, **options)

            warnings.showwarning = note
            yield

    def _write(self, stream: TextIO, text: str) -> None:
        if stream.isatty():
            self.progress.close()
        # A file name may hold characters that the stream's encoding lacks.
        encoding = stream.encoding or "utf-8"
        try:
            print(text.encode(encoding, "backslashreplace").decode(encoding), file=stream, flush=True)
        except OSError as error:
            if sys.platform == "win32" and error.errno == errno.EINVAL:  # Windows's word for a closed pipe
                raise BrokenPipeError from error
            raise


class Progress:
    """A bar for each stage on a terminal (`bars`), or a line at each quarter of a stage in a log file.

    It is called as `(stage, done, total)`. A stage ends when `done` reaches `total`, or when another begins.
    """

    def __init__(self, stream: TextIO, *, bars: bool, shown: bool = True) -> None:
        self._stream, self._bars, self._shown = stream, bars, shown
        self._stage: str | None = None
        self._bar: Any = None
        self._quarter, self._begin = -1, 0.0

    def __call__(self, stage: str, done: int, total: int) -> None:
        if not self._shown:
            return
        if stage != self._stage or (self._bar is not None and done < self._bar.n):
            self._open(stage, total)
        if self._bar is not None:
            self._bar.total = total or None
            self._bar.update(done - self._bar.n)
        elif not self._bars and total > 0 and 4 * done // total > self._quarter:
            self._quarter, seconds = 4 * done // total, time.perf_counter() - self._begin
            print(f"{stage}: {done}/{total} ({seconds:.1f} s)", file=self._stream, flush=True)
        if 0 < total <= done:
            self.close()

    def _open(self, stage: str, total: int) -> None:
        self.close()
        self._stage, self._quarter, self._begin = stage, -1, time.perf_counter()
        if self._bars:
            from tqdm import tqdm

            layout = "{desc} {bar:24} {n_fmt}/{total_fmt} [{elapsed}<{remaining}]"
            self._bar = tqdm(
                total=total or None, desc=f"{stage:<20}", file=self._stream, dynamic_ncols=True, bar_format=layout
            )

    def close(self) -> None:
        """End the current bar, so that other text starts on a line of its own."""
        if self._bar is not None:
            self._bar.close()
        self._bar = self._stage = None


def jsonable(value: Any) -> Any:
    """`value` in JSON's types: NumPy arrays, paths and mappings converted; NaN and infinity become null."""
    if isinstance(value, (np.ndarray, np.generic)):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [jsonable(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return value if value is None or isinstance(value, (str, int)) else str(value)


def format_table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Columns as wide as their widest cell; numbers to the right, words to the left, `-` for a missing value."""
    cells = [[_cell(value) for value in row] for row in rows]
    columns = list(zip(header, *cells, strict=True))
    widths = [max(map(len, column)) for column in columns]
    number = re.compile(r"-|[-+]?[\d.,]+(e[-+]\d+)?%?")
    right = [bool(rows) and all(map(number.fullmatch, column[1:])) for column in columns]

    def line(values: Sequence[str]) -> str:
        padded = [v.rjust(w) if r else v.ljust(w) for v, w, r in zip(values, widths, right, strict=True)]
        return "  ".join(padded).rstrip()

    return "\n".join([line(header), line(["-" * w for w in widths]), *map(line, cells)])


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return format_number(value) if isinstance(value, float) else str(value)


def format_number(value: float) -> str:
    """Four significant digits, without an exponent from 0.001 to 100,000."""
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        digits = 3 if value == 0 else max(0, 3 - math.floor(math.log10(abs(value))))
        return f"{value:.{digits}f}"
    return f"{value:.3e}"


def format_seconds(seconds: float) -> str:
    """`0.12 s`, `12.3 s`, `2 min 05 s`."""
    if seconds < 60:
        return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s"
