"""Progress on stderr: bars on a terminal, one line a quarter where bars were asked for without a terminal."""

from __future__ import annotations

import time
from typing import TextIO

from tqdm import tqdm


class Progress:
    """Callable `(stage, done, total)`, as `InReaCh.fit` wants it: one bar for each stage.

    A stage ends when `done` reaches `total`, or when another begins. Without a terminal (a log file) a bar
    would be a mess of carriage returns, so that there each stage prints a line at each quarter of its way.
    """

    def __init__(self, stream: TextIO, *, bars: bool) -> None:
        self._stream = stream
        self._bars = bars
        self._bar: tqdm[None] | None = None
        self._stage: str | None = None
        self._quarter = -1
        self._begin = 0.0

    def __call__(self, stage: str, done: int, total: int) -> None:
        if stage != self._stage or (self._bars and self._bar is not None and done < self._bar.n):
            self._open(stage, total)
        if self._bars:
            self._advance(done, total)
        else:
            self._log(done, total)
        if total > 0 and done >= total:
            self.close()

    def _open(self, stage: str, total: int) -> None:
        self.close()
        self._stage, self._quarter, self._begin = stage, -1, time.perf_counter()
        if self._bars:
            self._bar = tqdm(
                total=total or None,
                desc=f"{stage:<20}",
                file=self._stream,
                leave=True,
                dynamic_ncols=True,
                bar_format="{desc} {bar:24} {n_fmt}/{total_fmt} [{elapsed}<{remaining}]",
            )

    def _advance(self, done: int, total: int) -> None:
        assert self._bar is not None
        if total and self._bar.total != total:
            self._bar.total = total
        self._bar.update(done - self._bar.n)

    def _log(self, done: int, total: int) -> None:
        quarter = 4 * done // total if total > 0 else 0
        if quarter > self._quarter:
            self._quarter = quarter
            seconds = time.perf_counter() - self._begin
            print(f"{self._stage}: {done}/{total} ({seconds:.1f} s)", file=self._stream, flush=True)

    def close(self) -> None:
        """End the running bar, so that other text starts on a line of its own."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        self._stage = None
