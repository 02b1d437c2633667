"""The figures of algorithm.md, by matplotlib (extra [bench]).

``PYTHONPATH=. python docs/figures.py`` in the repository's root, after `make dev`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import numpy as np
from matplotlib import pyplot
from matplotlib.patches import ConnectionPatch, Rectangle

from inreach_fast import kernels

TARGET = Path(__file__).resolve().parent / "figures"
INK, GOOD, BAD, FAINT = "#1d2733", "#00695c", "#c2410c", "#8795a5"
pyplot.rcParams |= {"font.family": "DejaVu Sans", "font.size": 10, "svg.hashsalt": "inreach", "text.color": INK}


def save(figure: Any, name: str, **options: Any) -> None:
    TARGET.mkdir(exist_ok=True)
    if name.endswith(".svg"):
        options["metadata"] = {"Date": None}
    figure.savefig(TARGET / name, bbox_inches="tight", facecolor="white", **options)
    pyplot.close(figure)


def association() -> None:
    """A seed image and two others: pairs that are each other's nearest, and one that is not."""
    figure, axes = pyplot.subplots(1, 3, figsize=(9, 3.1), gridspec_kw={"wspace": 0.55})
    for axis, title in zip(axes, ("another image", "seed image", "a third image"), strict=True):
        axis.set(xlim=(-0.1, 4.1), ylim=(4.1, -0.1), aspect="equal", title=title)
        axis.axis("off")
        for row in range(4):
            for column in range(4):
                axis.add_patch(Rectangle((column, row), 1, 1, facecolor="#eef2f6", edgecolor=FAINT, linewidth=0.8))

    def mark(axis: Any, row: int, column: int, colour: str, text: str) -> None:
        axis.add_patch(Rectangle((column, row), 1, 1, facecolor=colour, edgecolor=INK, alpha=0.85))
        axis.text(column + 0.5, row + 0.5, text, ha="center", va="center", color="white", weight="bold")

    def join(first: Any, second: Any, begin: tuple[float, float], end: tuple[float, float], **style: Any) -> None:
        arrow = ConnectionPatch(begin, end, "data", "data", axesA=first, axesB=second, shrinkA=1, shrinkB=1, **style)
        figure.add_artist(arrow)

    left, seed, right = axes
    mark(seed, 1, 1, GOOD, "p")
    mark(left, 1, 2, GOOD, "q")
    mark(right, 0, 1, GOOD, "q'")
    mark(right, 3, 2, BAD, "d")
    both: dict[str, Any] = {"arrowstyle": "<|-|>", "color": GOOD, "linewidth": 1.8, "mutation_scale": 13}
    join(left, seed, (3, 1.5), (1, 1.5), **both)
    join(seed, right, (2, 1.4), (1, 0.5), **both)
    one: dict[str, Any] = {"arrowstyle": "-|>", "color": BAD, "linewidth": 1.4, "linestyle": "--", "mutation_scale": 13}
    join(right, seed, (2, 3.5), (2, 1.8), **one)
    figure.text(0.5, 0.01, "p, q and q' are each other's nearest patches: the channel of p.", ha="center", color=GOOD)
    figure.text(0.5, -0.07, "d is nearest to p, and p is nearest to q': d joins none.", ha="center", color=BAD)
    save(figure, "association.svg")


def reachability() -> None:
    """The score over a plane of descriptors: of the plain distance, and with confirmation distances."""
    random = np.random.default_rng(4)
    angle = np.linspace(0.3, 2.6, 16)
    curve = np.stack([3.2 * np.cos(angle), 2.4 * np.sin(angle)], axis=1)
    rows = np.concatenate([curve + random.normal(0, 0.13, curve.shape) for _ in range(5)]).astype(np.float32)
    image = np.repeat(np.arange(5), len(curve))
    defect = np.array([[0.1, 0.35], [0.42, 0.2]], dtype=np.float32)
    rows, image = np.concatenate([rows, defect]), np.append(image, [2, 2])
    witness = kernels.nearest(rows, kernels.Bank(rows, groups=image), query_group=image)
    floor = witness.sq_distance
    x, y = np.meshgrid(np.linspace(-3.9, 4.1, 400), np.linspace(-0.9, 3.1, 200))
    queries = np.stack([x.ravel(), y.ravel()], axis=1).astype(np.float32)
    plain = kernels.nearest(queries, rows).sq_distance.reshape(x.shape)
    score = kernels.nearest(queries, rows, bank_floor=floor).sq_distance.reshape(x.shape)
    figure, axes = pyplot.subplots(2, 1, figsize=(7.6, 7.9), gridspec_kw={"hspace": 0.16})
    titles = ("nearest patch: |q - b|²", "reachability: max(|q - b|², r(b))")
    for axis, values, title in zip(axes, (plain, score), titles, strict=True):
        extent = (x.min(), x.max(), y.min(), y.max())
        axis.imshow(np.sqrt(values), extent=extent, origin="lower", cmap="inferno", vmin=0, vmax=2, aspect="equal")
        good = np.ones(len(rows), dtype=bool)
        good[-2:] = False
        axis.scatter(*rows[good].T, s=10, color="#5eead4", label="patches that other images confirm")
        axis.scatter(*rows[~good].T, s=42, color="white", marker="x", label="a defect of one training image")
        axis.set(title=title, xticks=[], yticks=[])
        axis.legend(loc="lower left", fontsize=8, framealpha=0.9, facecolor="#2b2b2b", labelcolor="white")
    end = rows[witness.index[-2]]
    axes[1].annotate("", end, rows[-2], arrowprops={"arrowstyle": "<->", "color": "white", "linewidth": 1.2})
    axes[1].text(*(rows[-2] + end) / 2 + np.float32([0.1, 0.0]), "√r(b)", color="white", fontsize=11)
    save(figure, "reachability.jpg", dpi=110, pil_kwargs={"quality": 85})


if __name__ == "__main__":
    association()
    reachability()
