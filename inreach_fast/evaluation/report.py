"""Evaluation results as tables beside the supplement's Tables 1 to 3, and as CSV and JSON files.

Files are written aside and renamed, so that a full disk or an interruption leaves the earlier file whole.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from ..errors import ParameterError, SaveError
from .protocol import ClassResult

Style = Literal["markdown", "plain"]
STYLES: tuple[str, ...] = ("markdown", "plain")

#: Printed where a figure is undefined or the supplement has none.
ABSENT = "-"

_HEAD = (
    "Class",
    "Run",
    "Corrupt",
    "Order",
    "Image AUROC",
    "(suppl.)",
    "no overlap",
    "Pixel AUROC",
    "(suppl.)",
    "no overlap",
    "PRO",
    "no overlap",
    "Image AP",
    "Pixel AP",
    "Image F1",
    "Pixel F1",
    "Nominal precision",
    "Nominal recall",
    "Transpose",
    "(suppl.)",
    "Seconds",
)

_SUMMARY_HEAD = (
    "Class",
    "Run",
    "Corrupt",
    "Runs",
    "Image AUROC",
    "(suppl.)",
    "no overlap",
    "Pixel AUROC",
    "(suppl.)",
    "no overlap",
    "PRO",
    "Nominal precision",
    "Nominal recall",
)


def format_table(results: Sequence[ClassResult], *, style: Style = "markdown") -> str:
    """One row a result, the supplement's figures (``suppl.``) and those without the corruptions beside; ends
    in a newline.

    Where several results share a label, corruption level and order, a row "Average" over their classes
    follows them, as in the supplement. A column in which nothing is known is left out.

    Raises ParameterError for an unknown style.
    """
    rows = [_row(result) for result in results]
    groups: dict[tuple[str, int, int | None], list[ClassResult]] = {}
    for result in results:
        groups.setdefault((result.label, result.corrupt, result.shuffle), []).append(result)
    for (label, corrupt, shuffle), members in groups.items():
        if len({member.class_name for member in members}) > 1:
            rows.append(_average(label, corrupt, shuffle, members))
    return _layout(_HEAD, rows, style)


def format_summary(results: Sequence[ClassResult], *, style: Style = "markdown") -> str:
    """Over training orders: one row a class, label and corruption level, each figure as ``mean [least,
    greatest]``.
    """
    groups: dict[tuple[str, str, int], list[ClassResult]] = {}
    for result in results:
        groups.setdefault((result.class_name, result.label, result.corrupt), []).append(result)
    rows = []
    for (class_name, label, corrupt), members in groups.items():
        every = [member.with_overlap for member in members]
        fresh = [member.without_overlap for member in members]
        rows.append(
            [
                class_name,
                label,
                str(corrupt),
                str(len(members)),
                _spread([f.image_auroc for f in every]),
                _figure(members[0].expected.get("image_auroc")),
                _spread([f.image_auroc for f in fresh]),
                _spread([f.pixel_auroc for f in every]),
                _figure(members[0].expected.get("pixel_auroc")),
                _spread([f.pixel_auroc for f in fresh]),
                _spread([f.pro for f in every]),
                _spread([m.nominal.precision for m in members], digits=4),
                _spread([m.nominal.recall for m in members]),
            ]
        )
    return _layout(_SUMMARY_HEAD, rows, style)


def write_json(results: Sequence[ClassResult], path: str | Path) -> Path:
    """All that each result holds, parameters too, as a JSON list. Raises SaveError naming the file."""
    text = json.dumps([result.as_dict() for result in results], indent=2, ensure_ascii=False, allow_nan=False)
    return _write(Path(path), text + "\n")


def write_csv(results: Sequence[ClassResult], path: str | Path) -> Path:
    """One line a result with all scalar figures, unrounded, under flat names. Raises SaveError naming the
    file.
    """
    rows = [_flat(result) for result in results]
    names = list(dict.fromkeys(name for row in rows for name in row))
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, fieldnames=names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return _write(Path(path), buffer.getvalue())


def _row(result: ClassResult) -> list[str]:
    every, fresh, expected = result.with_overlap, result.without_overlap, result.expected
    return [
        result.class_name,
        result.label,
        str(result.corrupt),
        _order(result.shuffle),
        _figure(every.image_auroc),
        _figure(expected.get("image_auroc")),
        _figure(fresh.image_auroc),
        _figure(every.pixel_auroc),
        _figure(expected.get("pixel_auroc")),
        _figure(fresh.pixel_auroc),
        _figure(every.pro),
        _figure(fresh.pro),
        _figure(every.image_average_precision),
        _figure(every.pixel_average_precision),
        _figure(every.image_best_f1),
        _figure(every.pixel_best_f1),
        _figure(result.nominal.precision, digits=4),
        _figure(result.nominal.recall),
        _figure(result.transpose_score, digits=0),
        _figure(expected.get("transpose_score"), digits=0),
        _figure(result.seconds["total"], digits=1),
    ]


def _average(label: str, corrupt: int, shuffle: int | None, members: Sequence[ClassResult]) -> list[str]:
    """The mean of each figure, over the classes at hand only; a column with a gap has no mean."""
    rows = [
        (
            m.with_overlap.image_auroc,
            m.expected.get("image_auroc"),
            m.without_overlap.image_auroc,
            m.with_overlap.pixel_auroc,
            m.expected.get("pixel_auroc"),
            m.without_overlap.pixel_auroc,
            m.with_overlap.pro,
            m.without_overlap.pro,
            m.with_overlap.image_average_precision,
            m.with_overlap.pixel_average_precision,
            m.with_overlap.image_best_f1,
            m.with_overlap.pixel_best_f1,
            m.nominal.precision,
            m.nominal.recall,
        )
        for m in members
    ]
    means = [_mean(column) for column in zip(*rows, strict=True)]
    digits = [3] * 12 + [4, 3]
    cells = [_figure(mean, digits=places) for mean, places in zip(means, digits, strict=True)]
    seconds = _figure(sum(m.seconds["total"] for m in members), digits=1)
    return ["Average", label, str(corrupt), _order(shuffle), *cells, ABSENT, ABSENT, seconds]


def _layout(head: Sequence[str], rows: Sequence[Sequence[str]], style: str) -> str:
    if style not in STYLES:
        raise ParameterError(f"style: must be one of {', '.join(STYLES)}, got {style!r}")
    kept = [i for i in range(len(head)) if i == 0 or any(row[i] not in ("", ABSENT) for row in rows)]
    table = [[row[i] for i in kept] for row in [head, *rows]]
    widths = [max(len(row[i]) for row in table) for i in range(len(kept))]
    # Names to the left, numbers to the right.
    left = [head[i] in ("Class", "Run", "Order") for i in kept]

    def line(cells: Sequence[str]) -> list[str]:
        return [c.ljust(w) if to_left else c.rjust(w) for c, w, to_left in zip(cells, widths, left, strict=True)]

    if style == "plain":
        lines = ["  ".join(line(row)).rstrip() for row in table]
        lines.insert(1, "  ".join("-" * w for w in widths))
    else:
        lines = ["| " + " | ".join(line(row)) + " |" for row in table]
        rule = ["-" * w if to_left else "-" * (w - 1) + ":" for w, to_left in zip(widths, left, strict=True)]
        lines.insert(1, "| " + " | ".join(rule) + " |")
    return "\n".join(lines) + "\n"


def _figure(value: float | None, *, digits: int = 3) -> str:
    return ABSENT if value is None else f"{value:.{digits}f}"


def _order(shuffle: int | None) -> str:
    return "authors'" if shuffle is None else f"seed {shuffle}"


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


def _spread(values: Sequence[float | None], *, digits: int = 3) -> str:
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return ABSENT
    mean = sum(known) / len(known)
    if len(known) == 1:
        return _figure(mean, digits=digits)
    return f"{mean:.{digits}f} [{min(known):.{digits}f}, {max(known):.{digits}f}]"


def _flat(result: ClassResult) -> dict[str, Any]:
    """Scalars under flat names (``with_overlap_pro``).

    Parameters, the fit's report and the list of overlapping images are in the JSON file alone.
    """
    nested = result.as_dict()
    flat: dict[str, Any] = {}
    for name, value in nested.items():
        if name in ("parameters", "overlap", "fit_report"):
            continue
        if isinstance(value, dict):
            flat.update({f"{name}_{inner}": "" if v is None else v for inner, v in value.items()})
        else:
            flat[name] = "" if value is None else value
    return flat


def _write(path: Path, text: str) -> Path:
    temporary: str | None = None
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
            file.write(text)
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except OSError as error:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        raise SaveError(f"{path}: cannot be written ({error}); choose another folder or free space") from error
    return path


def _umask() -> int:
    """The process's umask: mkstemp gives 0600, which would keep a report from everyone else."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
