"""``python -m bench.compression``: AUROC and epsilon of a compressed model against its size, as a picture and JSON."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from . import ROOT, serving

SHARES = (0.5, 0.3, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002)


def main(arguments: list[str] | None = None) -> int:
    """Measure the requested classes and draw the figures."""
    parser = serving.arguments("compression", __doc__)
    parser.add_argument("--every", type=int, default=1, metavar="N", help="each N-th test image only")
    parser.add_argument("--picture", type=Path, default=ROOT / "docs" / "compression.png")
    options = parser.parse_args(arguments)
    found = {}
    for name in serving.classes(parser, options):
        found[name] = measure(serving.fitted_model(name, options.models), name, every=options.every)
        print(table(name, found[name]), flush=True)
    serving.write(options, found)
    draw(found, options.picture)
    return 0


def measure(model: Any, name: str, shares: tuple[float, ...] = SHARES, every: int = 1) -> dict[str, Any]:
    """Image AUROC on the test set of the class, of the fitted model and compressed to each share."""
    from inreach_fast.evaluation.metrics import auroc

    steps, models = [{"kept": len(model.nominal_), "epsilon": 0.0, "seconds": 0.0}], [model]
    for share in shares:
        begun = time.perf_counter()
        models.append(model.compress(to=share))
        made = models[-1].nominal_.compression
        steps.append({"kept": made.kept, "epsilon": made.epsilon, "seconds": time.perf_counter() - begun})
    files, defects = serving.test_files(name)
    files, defects = files[::every], defects[::every]
    scores: list[list[float]] = [[] for _ in models]
    distances: list[float] = []
    for rows in serving.descriptors(model, files):
        for one, into in zip(models, scores, strict=True):
            prediction = one.score_descriptors(rows)
            into.append(prediction.score)
            if one is model:
                distances.append(float(prediction.patch_scores.mean()) ** 0.5)
    for step, values in zip(steps, scores, strict=True):
        step["image_auroc"] = auroc(defects, values)
    return {
        "test_images": len(files),
        "patches": len(model.nominal_),
        "typical_distance": sorted(distances)[len(distances) // 2],
        "steps": steps,
    }


def table(name: str, found: dict[str, Any]) -> str:
    """The figures as a Markdown table."""
    lines = [
        f"{name}, {found['test_images']} test images; a patch's root mean squared distance is typically "
        f"{found['typical_distance']:.3g}",
        "",
        "| patches kept | share | epsilon | image AUROC | seconds to compress |",
        "|---:|---:|---:|---:|---:|",
    ]
    for step in found["steps"]:
        share = step["kept"] / found["patches"]
        lines.append(
            f"| {step['kept']:,} | {share:.2%} | {step['epsilon']:.3g} | {step['image_auroc']:.4f} | "
            f"{step['seconds']:.1f} |"
        )
    return "\n".join([*lines, ""])


def draw(found: dict[str, Any], path: Path) -> None:
    """Draw image AUROC and epsilon against the share kept."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot
    from matplotlib.ticker import FuncFormatter

    figure, (top, bottom) = pyplot.subplots(2, 1, figsize=(7, 6.4), sharex=True, constrained_layout=True)
    marks = "osD^v"
    for (name, one), colour, mark in zip(
        found.items(), ("#0b6e99", "#c4540a", "#4a7c1f", "#6b3fa0"), marks, strict=False
    ):
        share = [100 * step["kept"] / one["patches"] for step in one["steps"]]
        style = {"color": colour, "marker": mark, "markersize": 5, "linewidth": 1.6}
        label = f"{name}: {one['patches']:,} patches as fitted"
        top.plot(share, [step["image_auroc"] for step in one["steps"]], label=label, **style)
        epsilon = [step["epsilon"] for step in one["steps"]]
        bottom.plot(share, epsilon, **style)
        bottom.axhline(one["typical_distance"], color=colour, linestyle=":", linewidth=1)
        bottom.annotate(
            f"typical distance of a test patch, {name}",
            (share[0], one["typical_distance"]),
            (0, 3),
            textcoords="offset points",
            fontsize=8,
            color=colour,
            ha="left",
        )
    top.set_ylabel("image AUROC")
    top.set_ylim(top=1.01)
    top.set_title("Compressed nominal models: size, AUROC, guarantee")
    top.legend(loc="center left", frameon=False)
    bottom.set_ylabel("epsilon: most that a distance grows")
    bottom.set_xlabel("nominal patches kept, % of the fit (logarithmic)")
    bottom.set_xscale("log")
    bottom.set_ylim(bottom=0)
    bottom.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    bottom.invert_xaxis()
    for axis in (top, bottom):
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


if __name__ == "__main__":
    raise SystemExit(main())
