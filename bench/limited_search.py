"""``python -m bench.limited_search``: `predict` with a threshold and with budgets, against the full search."""

from __future__ import annotations

import time
from statistics import median
from typing import Any

import numpy as np

from . import serving

# Budgets, as shares of the full search's time in this run.
PARTS = (0.25, 0.5, 0.75, 1.5)


def main(arguments: list[str] | None = None) -> int:
    """Measure the requested classes."""
    parser = serving.arguments("limited_search", __doc__)
    parser.add_argument("--images", type=int, default=24, help="test images of each class (default: 24)")
    options = parser.parse_args(arguments)
    found = {}
    for name in serving.classes(parser, options):
        model = serving.fitted_model(name, options.models)
        files, defects = serving.test_files(name)
        order = np.random.default_rng(0).permutation(len(files))[: options.images]
        rows = list(serving.descriptors(model, [files[i] for i in order]))
        found[name] = measure(model, rows, [defects[i] for i in order])
        print(table(name, found[name]), flush=True)
    serving.write(options, found)
    return 0


def measure(model: Any, images: list[Any], defects: list[bool]) -> dict[str, Any]:
    """Each image by the full search, with a threshold, and with budgets, in turn; without the network."""
    model.prepare()
    plain = [_timed(model, rows) for rows in images]  # also warms up
    usual = median(seconds for seconds, _ in plain)
    ways: dict[str, dict[str, Any]] = {"whole search": {}, "threshold": {"threshold": model.threshold_}}
    for part in PARTS:
        ways[f"budget {part:g} of the whole"] = {"budget_ms": 1e3 * part * usual}
    ways["threshold and budget 0.5"] = {"threshold": model.threshold_, "budget_ms": 500 * usual}
    runs: dict[str, list[tuple[float, Any]]] = {name: [] for name in ways}
    for rows in images:
        for name, limits in ways.items():
            runs[name].append(_timed(model, rows, **limits))
    whole = runs["whole search"]
    return {
        "images": len(images),
        "defective": sum(defects),
        "patches": len(model.nominal_),
        "threshold": model.threshold_,
        "whole_seconds": median(seconds for seconds, _ in whole),
        "ways": {name: _summary(whole, runs[name], limits) for name, limits in ways.items()},
    }


def _timed(model: Any, rows: Any, **limits: Any) -> tuple[float, Any]:
    begun = time.perf_counter()
    prediction = model.score_descriptors(rows, **limits)
    return time.perf_counter() - begun, prediction


def _summary(whole: list[tuple[float, Any]], runs: list[tuple[float, Any]], limits: dict[str, Any]) -> dict[str, Any]:
    pairs = list(zip(whole, runs, strict=True))
    held = [p.score_lower <= w.score <= p.score_upper for (_, w), (_, p) in pairs]
    agreed = [p.is_anomalous == w.is_anomalous for (_, w), (_, p) in pairs if p.certain]
    budget = limits.get("budget_ms")
    return {
        "ratio": median(w / p for (w, _), (p, _) in pairs),
        "ratio_least": min(w / p for (w, _), (p, _) in pairs),
        "certain": float(np.mean([p.certain for _, p in runs])),
        "complete": float(np.mean([p.complete for _, p in runs])),
        "bounds_held": f"{sum(held)} of {len(held)}",
        "certain_verdicts_equal": f"{sum(agreed)} of {len(agreed)}",
        "width": median((p.score_upper - p.score_lower) / w.score for (_, w), (_, p) in pairs),
        "decided": _share([p.counts.decided / w.counts.decided for (_, w), (_, p) in pairs if p.counts and w.counts]),
        "late_ms": None if budget is None else max(0.0, max(1e3 * p - budget for p, _ in runs)),
    }


def _share(values: list[float]) -> float | None:
    return median(values) if values else None


def table(name: str, found: dict[str, Any]) -> str:
    """The figures as a Markdown table."""
    lines = [
        f"{name}: {found['images']} test images ({found['defective']} defective), {found['patches']:,} nominal "
        f"patches; the whole search and map take {1e3 * found['whole_seconds']:.3g} ms, median",
        "",
        "| way | whole search's time over its | least | certain | complete | bounds' width over score | "
        "pairs decided | latest | bounds held | verdicts equal |",
        "|---|" + "---:|" * 9,
    ]
    for way, one in found["ways"].items():
        late = "" if one["late_ms"] is None else f"{one['late_ms']:.1f} ms"
        decided = "" if one["decided"] is None else f"{one['decided']:.2f}x"
        lines.append(
            f"| {way} | {one['ratio']:.2f} | {one['ratio_least']:.2f} | {one['certain']:.0%} | {one['complete']:.0%} | "
            f"{one['width']:.1%} | {decided} | {late} | {one['bounds_held']} | {one['certain_verdicts_equal']} |"
        )
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    raise SystemExit(main())
