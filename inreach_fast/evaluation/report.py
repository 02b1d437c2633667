"""Evaluation results as tables with the supplement's figures (Tables 1 to 3), and as CSV and JSON files."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from ..errors import ParameterError, SaveError
from ..storage.files import whole_file
from .protocol import ClassResult

Style = Literal["markdown", "plain"]

#: Printed where a figure is undefined or the supplement has none.
ABSENT = "-"


class _Column(NamedTuple):
    head: str
    figure: str  # a name of `_flat`
    digits: int = 3
    in_summary: bool = False


_COLUMNS = (
    _Column("Image AUROC", "with_overlap_image_auroc", in_summary=True),
    _Column("(suppl.)", "expected_image_auroc", in_summary=True),
    _Column("no overlap", "without_overlap_image_auroc", in_summary=True),
    _Column("Pixel AUROC", "with_overlap_pixel_auroc", in_summary=True),
    _Column("(suppl.)", "expected_pixel_auroc", in_summary=True),
    _Column("no overlap", "without_overlap_pixel_auroc", in_summary=True),
    _Column("PRO", "with_overlap_pro", in_summary=True),
    _Column("no overlap", "without_overlap_pro"),
    _Column("Image AP", "with_overlap_image_average_precision"),
    _Column("Pixel AP", "with_overlap_pixel_average_precision"),
    _Column("Image F1", "with_overlap_image_best_f1"),
    _Column("Pixel F1", "with_overlap_pixel_best_f1"),
    _Column("Nominal precision", "nominal_precision", digits=4, in_summary=True),
    _Column("Nominal recall", "nominal_recall", in_summary=True),
    _Column("Audit AUROC", "audit_auroc", in_summary=True),
    _Column("Audit precision", "audit_precision", in_summary=True),
    _Column("Share error", "audit_error", in_summary=True),
    _Column("Transpose", "transpose_score", digits=0),
    _Column("(suppl.)", "expected_transpose_score", digits=0),
    _Column("Seconds", "seconds_total", digits=1),
)


def format_table(results: Sequence[ClassResult], *, style: Style = "markdown") -> str:
    """One row for each result, with the supplement's figures (``suppl.``) and those without the corruptions.

    Results of several classes with one label, corruption level and order are followed by a row "Average", as in the
    supplement. Columns without any value are left out. Raises ParameterError for an unknown style.
    """
    rows = [_names(result, result.class_name) + _cells([result]) for result in results]
    for members in _groups(results, "label", "corrupt", "shuffle"):
        if len({member.class_name for member in members}) > 1:
            rows.append(_names(members[0], "Average") + _cells(members))
    return _layout(["Class", "Run", "Corrupt", "Order", *(column.head for column in _COLUMNS)], rows, style)


def format_summary(results: Sequence[ClassResult], *, style: Style = "markdown") -> str:
    """Over training orders: one row for each class, label and corruption level; ``mean [least, greatest]``."""
    columns = [column for column in _COLUMNS if column.in_summary]
    rows = []
    for members in _groups(results, "class_name", "label", "corrupt"):
        names = [members[0].class_name, members[0].label, str(members[0].corrupt), str(len(members))]
        flat = [_flat(member) for member in members]
        rows.append(names + [_spread([values.get(c.figure) for values in flat], c) for c in columns])
    return _layout(["Class", "Run", "Corrupt", "Runs", *(column.head for column in columns)], rows, style)


def write_json(results: Sequence[ClassResult], path: str | Path) -> Path:
    """Everything in the results, as a JSON list. Raises SaveError naming the file."""
    text = json.dumps([result.as_dict() for result in results], indent=2, ensure_ascii=False, allow_nan=False)
    return _write(Path(path), text + "\n")


def write_csv(results: Sequence[ClassResult], path: str | Path) -> Path:
    """One line for each result with all scalar figures, not rounded. Raises SaveError naming the file."""
    rows = [_flat(result) for result in results]
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, list(dict.fromkeys(name for row in rows for name in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return _write(Path(path), buffer.getvalue())


def _write(path: Path, text: str) -> Path:
    try:
        with whole_file(path) as file:
            file.write(text.encode())
    except OSError as error:
        raise SaveError(f"{path}: cannot be written ({error}); free some space or choose another folder") from error
    return path


def _groups(results: Sequence[ClassResult], *names: str) -> list[list[ClassResult]]:
    """Results that agree in these attributes."""
    groups: dict[tuple[Any, ...], list[ClassResult]] = {}
    for result in results:
        groups.setdefault(tuple(getattr(result, name) for name in names), []).append(result)
    return list(groups.values())


def _names(result: ClassResult, first: str) -> list[str]:
    order = "authors'" if result.shuffle is None else f"seed {result.shuffle}"
    return [first, result.label, str(result.corrupt), order]


def _cells(members: Sequence[ClassResult]) -> list[str]:
    """The figures of one result, or the mean of each over several; a column with a gap has no mean.

    Of several, transpose scores have no mean, and seconds are added.
    """
    flat = [_flat(member) for member in members]
    cells = []
    for column in _COLUMNS:
        values: list[Any] = [row.get(column.figure) for row in flat]
        value: float | None = None
        if column.figure == "seconds_total":
            value = sum(values)
        elif None not in values and (len(flat) == 1 or "transpose" not in column.figure):
            value = sum(values) / len(values)
        cells.append(_number(value, column.digits))
    return cells


def _layout(head: Sequence[str], rows: Sequence[Sequence[str]], style: str) -> str:
    if style not in get_args(Style):
        raise ParameterError(f"style: must be one of {', '.join(get_args(Style))}, got {style!r}")
    kept = [i for i in range(len(head)) if i == 0 or any(row[i] not in ("", ABSENT) for row in rows)]
    table = [[row[i] for i in kept] for row in [head, *rows]]
    widths = [max(len(row[i]) for row in table) for i in range(len(kept))]
    left = [head[i] in ("Class", "Run", "Order") for i in kept]

    def line(cells: Sequence[str]) -> list[str]:
        return [c.ljust(w) if to_left else c.rjust(w) for c, w, to_left in zip(cells, widths, left, strict=True)]

    end = "-" if style == "plain" else ":"  # of the rule under a column on the right
    rule = ["-" * w if to_left else "-" * (w - 1) + end for w, to_left in zip(widths, left, strict=True)]
    head, *body = map(line, table)
    lines = ["  ".join(row) if style == "plain" else f"| {' | '.join(row)} |" for row in (head, rule, *body)]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _number(value: float | None, digits: int) -> str:
    return ABSENT if value is None else f"{value:.{digits}f}"


def _spread(values: Sequence[Any], column: _Column) -> str:
    if None in values:
        return ABSENT
    mean, *ends = (_number(value, column.digits) for value in (sum(values) / len(values), min(values), max(values)))
    if len(values) == 1 or column.figure.startswith("expected"):
        return mean
    return f"{mean} [{ends[0]}, {ends[1]}]"


def _flat(result: ClassResult) -> dict[str, Any]:
    """Scalars under flat names (``with_overlap_pro``); parameters, fit report and overlap are in JSON files only."""
    nested = result.as_dict()
    for name in ("parameters", "fit_report", "overlap", "skipped", "remarks", "kinds"):
        nested.pop(name, None)
    flat: dict[str, Any] = {}
    for name, value in nested.items():
        flat.update({f"{name}_{inner}": v for inner, v in value.items()} if isinstance(value, dict) else {name: value})
    return flat
