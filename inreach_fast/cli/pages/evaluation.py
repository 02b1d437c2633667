"""The page of an evaluation: figures, curves, kinds of defects, best and worst cases, and speed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from ...evaluation import Case, ClassDetails, ClassResult
from ...evaluation.details import PRO_LIMIT
from ..console import format_number
from ..pictures import Inspected, outline
from .charts import curve
from .crops import jpeg_uri
from .explanation import short_name
from .html import Html, fill, joined, page

_TRUTH: Final = (255, 60, 60)
_CASE_WORDS: Final = {
    "missed most": "Defects that score least",
    "nearest to a false alarm": "Good images that score most",
    "clearest defects": "Defects that score most",
    "clearest good images": "Good images that score least",
}
_FIGURES: Final = (
    ("image AUROC", "image_auroc"),
    ("pixel AUROC", "pixel_auroc"),
    ("PRO", "pro"),
    ("image AP", "image_average_precision"),
    ("pixel AP", "pixel_average_precision"),
    ("image F1, best", "image_best_f1"),
    ("pixel F1, best", "pixel_best_f1"),
)


def evaluation_page(results: Sequence[ClassResult], root: str) -> str:
    """The page of evaluated classes."""
    names = [_title(result) for result in results]
    links = joined(
        fill("section_link.html", target=f"#result-{number}", words=name) for number, name in enumerate(names, start=1)
    )
    sections = joined(_section(number, names[number - 1], result) for number, result in enumerate(results, start=1))
    body = fill("evaluation.html", links=links, overview=_overview(results, names), sections=sections)
    runs = f"{root}: {len(results)} run{'s' if len(results) != 1 else ''}"
    return page(f"Evaluation of {short_name(root)}", runs, body)


def table(caption: str, head: Sequence[str], rows: Sequence[Sequence[Any]]) -> Html:
    """A table whose first column names the rows; numbers stand on the right."""
    heads = [fill("cell_head.html", kind="" if i == 0 else "number", words=words) for i, words in enumerate(head)]
    lines = []
    for first, *rest in rows:
        cells = [fill("cell.html", words=_cell(value)) for value in rest]
        lines.append(fill("line.html", name=first, cells=joined(cells)))
    return fill("table.html", caption=caption, heads=joined(heads), lines=joined(lines))


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _title(result: ClassResult) -> str:
    words = [result.class_name, *([result.label] if result.label else []), f"{result.corrupt} corruptions"]
    return ", ".join([*words, *([] if result.shuffle is None else [f"order {result.shuffle}"])])


def _overview(results: Sequence[ClassResult], names: Sequence[str]) -> Html:
    head = ["run", "image AUROC", "pixel AUROC", "PRO", "audit AUROC", "audit precision", "share error", "seconds"]
    rows = [
        [
            name,
            *(getattr(result.with_overlap, figure) for figure in ("image_auroc", "pixel_auroc", "pro")),
            *(getattr(result.audit, figure) for figure in ("auroc", "precision", "error")),
            f"{result.seconds['total']:.1f}",
        ]
        for name, result in zip(names, results, strict=True)
    ]
    caption = (
        "All test images. Audit: the defective images found among the training images (area under the ROC curve, and "
        "precision among as many as there are), and the estimated share of them less the true one"
    )
    return table(caption, head, rows)


def _section(number: int, name: str, result: ClassResult) -> Html:
    details = result.details
    assert details is not None
    figures = result.with_overlap
    with_or_without = [
        [words, getattr(figures, figure), getattr(result.without_overlap, figure)] for words, figure in _FIGURES
    ]
    return fill(
        "evaluation_class.html",
        number=number,
        name=name,
        backbone=result.backbone,
        preset=result.preset,
        counts="{train} training images, {train_defective} of them defective; {test} test images, {test_defective} "
        "defective".format(**result.counts),
        threshold=format_number(details.threshold),
        chosen="the one with the best F1 on these images (the method has no rule of its own)"
        if details.threshold_from_labels
        else "chosen without labels",
        figures=table(
            "Figures over all test images, and over those that were not trained on",
            ["figure", "all", "not trained on"],
            with_or_without,
        ),
        audit=_audit(result),
        kinds=_kinds(details),
        curves=joined(_curves(number, result, details)),
        cases=joined(_case_group(number, i, details, kind) for i, kind in enumerate(details.cases)),
        speed=_speed(result, details),
        remarks=joined(fill("paragraph.html", words=remark) for remark in result.remarks),
    )


def _audit(result: ClassResult) -> Html:
    audit = result.audit
    rows = [
        ["defective images found, AUROC", audit.auroc],
        ["precision among as many as there are", audit.precision],
        ["share of defective images", audit.share],
        ["the same, estimated", audit.estimate],
        ["interval of 90 %, from", audit.low],
        ["to", audit.high],
        ["error of the estimate", audit.error],
    ]
    return table("The training images' own scores", ["figure", "value"], rows)


def _kinds(details: ClassDetails) -> Html:
    head = ["kind", "images", "above the threshold", "image AUROC", "pixel AUROC", "PRO"]
    rows = [
        [kind.kind, kind.images, f"{kind.found} of {kind.images}", kind.image_auroc, kind.pixel_auroc, kind.pro]
        for kind in details.kinds
    ]
    own = "at the best F1" if details.threshold_from_labels else "the model's own"
    caption = f"Each kind of defect against all good test images; the threshold is {own}"
    return table(caption, head, rows)


def _curves(number: int, result: ClassResult, details: ClassDetails) -> list[Html]:
    charts, figures = [], result.with_overlap
    if details.roc is not None and figures.image_auroc is not None:
        charts.append(
            curve(
                *details.roc,
                name=f"roc-{number}",
                title="ROC curve of images",
                words=f"Area {figures.image_auroc:.3f}.",
                x_words="good images flagged",
                y_words="defective images found",
            )
        )
    if details.pro is not None and figures.pro is not None:
        charts.append(
            curve(
                *details.pro,
                name=f"pro-{number}",
                title="PRO curve",
                words=f"Area up to {PRO_LIMIT:g}, divided by it: {figures.pro:.3f}.",
                x_words="good pixels flagged",
                y_words="overlap with the defects",
                x_end=PRO_LIMIT,
            )
        )
    return charts


def _case_group(number: int, place: int, details: ClassDetails, kind: str) -> Html:
    cases = details.cases[kind]
    if not cases:
        return Html("")
    shown = joined(_case(case, details.threshold) for case in cases)
    return fill("cases.html", id=f"cases-{number}-{place}", words=_CASE_WORDS[kind], cases=shown)


def _case(case: Case, threshold: float) -> Html:
    inspected = Inspected(case.name, case.image, case.anomaly_map, case.score, threshold, case.score > threshold)
    size = case.image.shape[0], case.image.shape[1]
    _, _, overlay = inspected.panels(size, 1)
    truth = "The image" if case.mask is None or not case.mask.any() else "The image, its defect outlined in red"
    image = case.image if case.mask is None else outline(case.image, case.mask, _TRUTH, 1)
    flagged = case.score > threshold
    verdict = "right" if flagged == case.defective else "missed" if case.defective else "false alarm"
    return fill(
        "case.html",
        name=case.name,
        score=format_number(case.score),
        verdict=verdict,
        kind="good" if verdict == "right" else "bad",
        truth=truth,
        image=jpeg_uri(image),
        overlay=jpeg_uri(overlay),
        width=size[1],
        height=size[0],
    )


def _speed(result: ClassResult, details: ClassDetails) -> Html:
    seconds = 1e3 * details.predict_seconds
    rows: list[list[Any]] = [[f"{name}, s", f"{value:.2f}"] for name, value in result.seconds.items()]
    rows += [[f"fit: {name}, s", f"{value:.2f}"] for name, value in result.fit_report["seconds"].items()]
    if len(seconds):
        for words, level in (("median", 50), ("99 %", 99), ("slowest", 100)):
            rows.append([f"one image, {words}, ms", f"{np.percentile(seconds, level):.1f}"])
    caption = "Wall clock, reading included; a cache of descriptors (--cache) shortens all of it"
    return table(caption, ["what", "time"], rows)
