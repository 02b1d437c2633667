"""Metrics in the text format that Prometheus reads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from .histogram import LatencyHistogram

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_BOUNDS = [1 << k for k in range(10, 26)]  # microseconds: 1 ms to 34 s, which the histogram counts exactly

Labels = Mapping[str, str]


class MetricsText:
    """Collects metrics; as text it is the page."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def add(self, name: str, kind: str, words: str, values: Iterable[tuple[Labels, float]]) -> None:
        """A counter or gauge with a value for each set of labels; ``words``: what it is."""
        self._head(name, kind, words)
        self._lines += [f"{name}{_labels(labels)} {value:.10g}" for labels, value in values]

    def add_histogram(self, name: str, words: str, histogram: LatencyHistogram) -> None:
        """A histogram of seconds."""
        self._head(name, "histogram", words)
        counts = histogram.at_most(_BOUNDS)
        total = max(histogram.count, counts[-1])
        for bound, count in zip(_BOUNDS, counts, strict=True):
            self._lines.append(f'{name}_bucket{{le="{bound / 1e6:g}"}} {count}')
        self._lines += [f'{name}_bucket{{le="+Inf"}} {total}', f"{name}_sum {histogram.total:.9g}"]
        self._lines.append(f"{name}_count {total}")

    def __str__(self) -> str:
        return "\n".join(self._lines) + "\n"

    def _head(self, name: str, kind: str, words: str) -> None:
        self._lines += [f"# HELP {name} {words}", f"# TYPE {name} {kind}"]


def _labels(labels: Labels) -> str:
    return "{" + ",".join(f'{name}="{value}"' for name, value in labels.items()) + "}" if labels else ""
