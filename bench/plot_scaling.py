"""The plot of time against bank size, from a result of the scale section.

python -m bench.plot_scaling bench/results/scale.json docs/search-scaling.png
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import approximate, panorama, peers
from .search import RANDOM
from .timing import OURS

# Each contestant has the same colour in every picture. Blue is ours.
_STYLES: dict[str, dict[str, Any]] = {
    OURS: {"color": "#1f5fbf", "linewidth": 2.6, "marker": "o", "zorder": 5},
    peers.FAISS: {"color": "#c0392b", "marker": "s"},
    panorama.NAME: {"color": "#e08e0b", "marker": "D"},
    approximate.HNSW: {"color": "#27864a", "marker": "^"},
    approximate.IVF: {"color": "#7cb342", "marker": "v"},
    peers.TORCH: {"color": "#7d3c98", "marker": "P"},
    peers.SKLEARN: {"color": "#7f8c8d", "marker": "X"},
}
_WORDS = {approximate.HNSW: "at recall 0.99", approximate.IVF: "at recall 0.99"}


def main() -> None:
    """Read the result, write the picture."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("result", type=Path)
    parser.add_argument("picture", type=Path, nargs="+")
    options = parser.parse_args()
    result = json.loads(options.result.read_text(encoding="utf-8"))
    for picture in options.picture:
        plot(result, picture)


def series(cases: list[dict[str, Any]]) -> dict[tuple[str, bool], dict[int, float]]:
    """(contestant, whether on noise) -> {rows of the bank: seconds a query}."""
    found: dict[tuple[str, bool], dict[int, float]] = {}
    for case in cases:
        if case["kind"] != "time" or "rows" not in case:
            continue
        for who, seconds in case["seconds"].items():
            line = found.setdefault((who, case["data"] == RANDOM), {})
            line[case["rows"]] = seconds["median"] / case["queries"]
    return found


def plot(result: Mapping[str, Any], picture: Path) -> None:
    """Write the picture (PNG), log-log: solid lines for descriptors, dashed lines for noise."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    lines = series(result["sections"]["scale"]["cases"])
    figure, axes = pyplot.subplots(figsize=(10, 5.2), layout="constrained")
    ordered = sorted(lines.items(), key=lambda item: (item[0][1], list(_STYLES).index(item[0][0])))
    for (who, noise), points in ordered:
        sizes = sorted(points)
        label = f"{who}{' ' + _WORDS[who] if who in _WORDS else ''}{', isotropic noise' if noise else ''}"
        style = {"markersize": 6, "linewidth": 1.6, **_STYLES[who]}
        if noise:
            style |= {"linestyle": "--", "markerfacecolor": "white", "linewidth": 1.4}
        axes.plot(sizes, [1e3 * points[size] for size in sizes], label=label, **style)
    axes.set(xscale="log", yscale="log", xlabel="patches in the bank", ylabel="milliseconds a query")
    axes.grid(which="major", alpha=0.35)
    axes.grid(which="minor", alpha=0.12)
    axes.set_title(_title(result), fontsize=10)
    axes.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture, dpi=110, metadata={"Software": None})
    pyplot.close(figure)


def _title(result: Mapping[str, Any]) -> str:
    machine = result["machine"]
    ours = machine["inreach_fast"]
    return (
        f"nearest, descriptors of 1024 values, {ours.get('threads', '?')} threads of {machine['cpu']} "
        f"({ours.get('isa', 'no extension')})"
    )


if __name__ == "__main__":
    main()
