"""Charts as inline SVG: they follow the page's colours, and have a title and a description for screen readers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from ...array_types import DoubleArray
from ..console import format_number
from .html import Html, fill, joined

_WIDTH, _HEIGHT = 640, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 16, 24, 46
_MOST_BINS: Final = 40
_MOST_POINTS: Final = 400


@dataclass(frozen=True)
class Axis:
    """A linear or logarithmic axis from ``low`` to ``high``, drawn between the pixels ``start`` and ``end``."""

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False

    def at(self, value: float) -> float:
        """The pixel of a value; values beyond the ends are drawn there."""
        low, high, value = (math.log(v) if self.logarithmic else v for v in (self.low, self.high, max(value, self.low)))
        share = (value - low) / (high - low) if high > low else 0.5
        return round(self.start + min(max(share, 0.0), 1.0) * (self.end - self.start), 2)

    def ticks(self, count: int = 5) -> list[float]:
        """Round values within the axis: about so many, or of a logarithmic axis its 1, 2 and 5 times powers of ten."""
        if self.logarithmic:
            first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
            steps = (1, 2, 5) if last - first <= 2 else (1,)
            every = [step * 10.0**power for power in range(first, last + 1) for step in steps]
        else:
            size = (self.high - self.low) / count or 1.0
            power = 10.0 ** math.floor(math.log10(size))
            step = next((s * power for s in (1, 2, 5) if s * power >= size), 10 * power)
            every = [
                step * i for i in range(math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9) + 1)
            ]
        return [value for value in every if self.low <= value <= self.high * (1 + 1e-9)]


def histogram(scores: Sequence[float], threshold: float, *, name: str, title: str) -> Html:
    """How many of the scores lie where, with a line at the threshold; ``name`` is the chart's id on the page."""
    finite = np.array([score for score in scores if math.isfinite(score)], dtype=np.float64)
    if not len(finite):
        return Html("")
    ends = np.append(finite, threshold) if math.isfinite(threshold) else finite
    logarithmic = bool(ends.min() > 0 and ends.max() > 4 * ends.min())
    low, high = float(ends.min()), float(ends.max())
    if low == high:
        low, high = (low / 1.1, high * 1.1) if low > 0 else (low - 1.0, high + 1.0)
    bins = int(min(_MOST_BINS, max(8, 2 * math.sqrt(len(finite)))))
    edges = np.geomspace(low, high, bins + 1) if logarithmic else np.linspace(low, high, bins + 1)
    edges[0], edges[-1] = low, high
    is_above = finite > threshold
    counts = [np.histogram(part, edges)[0] for part in (finite[~is_above], finite[is_above])]
    most = max(1, int((counts[0] + counts[1]).max()))
    x = Axis(low, high, _LEFT, _WIDTH - _RIGHT, logarithmic)
    y = Axis(0.0, float(most), _HEIGHT - _BOTTOM, _TOP)
    bars = []
    for i in range(bins):
        left, right, base = x.at(edges[i]), x.at(edges[i + 1]), 0
        for kind, count in zip(("below", "above"), (int(counts[0][i]), int(counts[1][i])), strict=True):
            if count:
                top, foot = y.at(base + count), y.at(base)
                width, height = round(max(right - left - 1, 1), 2), round(foot - top, 2)
                bars.append(fill("bar.svg", kind=kind, x=left, y=top, width=width, height=height))
                base += count
    above = int(is_above.sum())
    words = (
        f"{len(finite)} images, from {format_number(float(finite.min()))} to {format_number(float(finite.max()))}; "
        f"{above} above the threshold {format_number(threshold)}."
    )
    line = fill("threshold.svg", x=x.at(threshold), top=_TOP - 6, bottom=_HEIGHT - _BOTTOM, middle=x.at(threshold),
                anchor="end" if x.at(threshold) > _WIDTH / 2 else "start")  # fmt: skip
    words_x = "score (logarithmic)" if logarithmic else "score"
    return _chart(name, title, words, x, y, words_x, "images", joined([*bars, line]))


def curve(
    x_values: Sequence[float] | DoubleArray,
    y_values: Sequence[float] | DoubleArray,
    *,
    name: str,
    title: str,
    words: str,
    x_words: str,
    y_words: str,
    x_end: float = 1.0,
) -> Html:
    """A rising curve from (0, 0), drawn up to ``x_end``; ``name`` is the chart's id on the page."""
    across, up = np.asarray(x_values, dtype=np.float64), np.asarray(y_values, dtype=np.float64)
    x = Axis(0.0, x_end, _LEFT, _WIDTH - _RIGHT)
    y = Axis(0.0, 1.0, _HEIGHT - _BOTTOM, _TOP)
    inside = across <= x_end
    if not inside.all() and inside.any():  # the piece that leaves the chart is cut
        at_end = float(np.interp(x_end, across, up))
        across, up = np.append(across[inside], x_end), np.append(up[inside], at_end)
    if len(across) > _MOST_POINTS:
        kept = np.unique(np.linspace(0, len(across) - 1, _MOST_POINTS).astype(np.int64))
        across, up = across[kept], up[kept]
    points = " ".join(f"{x.at(a):g},{y.at(b):g}" for a, b in zip(across.tolist(), up.tolist(), strict=True))
    return _chart(name, title, words, x, y, x_words, y_words, fill("line.svg", points=points))


def _chart(name: str, title: str, words: str, x: Axis, y: Axis, x_words: str, y_words: str, content: Html) -> Html:
    ticks: list[Html] = []
    for value in x.ticks():
        ticks.append(fill("tick_x.svg", x=x.at(value), top=_HEIGHT - _BOTTOM, bottom=_HEIGHT - _BOTTOM + 5,
                          words_y=_HEIGHT - _BOTTOM + 19, words=_short(value)))  # fmt: skip
    for value in y.ticks(4):
        if y.high > 1.5 and value != int(value):
            continue  # a count
        ticks.append(fill("tick_y.svg", y=y.at(value), left=_LEFT, right=_WIDTH - _RIGHT, words_x=_LEFT - 8,
                          words_y=y.at(value) + 4, words=_short(value)))  # fmt: skip
    values: dict[str, Any] = {
        "name": name, "title": title, "words": words, "width": _WIDTH, "height": _HEIGHT, "left": _LEFT,
        "right": _WIDTH - _RIGHT, "base": _HEIGHT - _BOTTOM, "x_words": x_words, "y_words": y_words,
        "x_middle": (_LEFT + _WIDTH - _RIGHT) / 2, "x_words_y": _HEIGHT - 8, "y_words_y": _TOP - 10,
    }  # fmt: skip
    return fill("chart.html", ticks=joined(ticks), content=content, **values)


def _short(value: float) -> str:
    return f"{value:g}" if value == 0 or 1e-4 <= abs(value) < 1e6 else f"{value:.0e}"
