"""The supplement's Table 2 (ablation and alternative scores) and Figure 1 (hierarchy depth) as parameter
overrides.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ParameterError
from .protocol import ClassResult, evaluate_class


@dataclass(frozen=True)
class AblationRow:
    """One configuration of Table 2: its column's key and name there, and the parameters that make it."""

    key: str
    name: str
    overrides: dict[str, Any]


# Alignment serves positions alone (supplement D), so a row without positions has none.
_BASE: dict[str, Any] = {
    "neighbourhood": 1,
    "span_filter": False,
    "spread_filter": False,
    "position": "never",
    "align": "never",
    "score": "nearest",
}
_LOCAL = {key: value for key, value in _BASE.items() if key != "neighbourhood"}
_SPAN = {**_LOCAL, "span_filter": True}
_SIGMA = {**_SPAN, "spread_filter": True}
_PROPOSED: dict[str, Any] = {
    "span_filter": True,
    "spread_filter": True,
    "position": "auto",
    "score": "nearest",
}

#: Table 2's seven columns in its order. The first five are cumulative; the last two change the proposed one's
#: score. What a row does not override (the aggregation's width, alignment of the proposed rows) is the
#: preset's.
ABLATION_ROWS: tuple[AblationRow, ...] = (
    AblationRow("base", "Base InReaCh", _BASE),
    AblationRow("local_aggregation", "Local Agg.", _LOCAL),
    AblationRow("span_filter", "Span Filter", _SPAN),
    AblationRow("sigma_filter", "σ Filter", _SIGMA),
    AblationRow("position_embedding", "Pos. Embedding", _PROPOSED),
    AblationRow("mahalanobis", "Mahalanobis", {**_PROPOSED, "score": "mahalanobis"}),
    AblationRow("patchcore", "PatchCore", {**_PROPOSED, "score": "patchcore"}),
)

#: Figure 1's abscissa.
FIGURE1_DEPTHS: tuple[int | str, ...] = (*range(1, 14), "PC")


def depth_list(text: str) -> list[int | str]:
    """Depths from text: ``"1..13,PC"`` is 1 to 13 and PatchCore's pick; ``"3,7"`` just these two; no
    repetitions.

    Raises ParameterError for anything else, quoting the part that is wrong.
    """
    depths: list[int | str] = []
    for part in (piece.strip() for piece in text.split(",")):
        first, dots, last = part.partition("..")
        if part.upper() == "PC":
            depths.append("PC")
        elif first.isdecimal() and (last.isdecimal() if dots else True):
            low, high = int(first), int(last) if dots else int(first)
            if not 1 <= low <= high <= 13:
                raise ParameterError(f"depth: {part!r} is not within 1..13")
            depths += range(low, high + 1)
        else:
            raise ParameterError(f"depth: {part!r} is neither a depth, a range like 1..13, nor PC")
    return list(dict.fromkeys(depths))


def run_ablation(
    root: str | Path,
    class_name: str,
    *,
    corrupt: int = 10,
    rows: Sequence[str] | None = None,
    parameters: dict[str, Any] | None = None,
    on_result: Callable[[ClassResult], None] | None = None,
    **options: Any,
) -> list[ClassResult]:
    """Evaluate one class in Table 2's configurations (all, or those whose keys are in ``rows``), in its
    order.

    parameters: overrides for every row; a row's own come after them. on_result: called after each row, so
    that a long run can report as it goes. options: those of `evaluate_class` (shuffle, preset, backbone,
    layout, cache, progress). With a cache the backbone runs twice over the images, once for each aggregation
    width.

    Raises ParameterError for an unknown row, and what `evaluate_class` raises.
    """
    known = {row.key for row in ABLATION_ROWS}
    unknown = sorted(set(rows or ()) - known)
    if unknown:
        raise ParameterError(
            f"rows: unknown {', '.join(unknown)}; choose from {', '.join(r.key for r in ABLATION_ROWS)}"
        )
    results = []
    for row in ABLATION_ROWS:
        if rows is not None and row.key not in rows:
            continue
        overrides = {**(parameters or {}), **row.overrides}
        result = evaluate_class(
            root,
            class_name,
            corrupt=corrupt,
            parameters=overrides,
            label=row.name,
            table2_column=row.key,
            **options,
        )
        results.append(result)
        if on_result is not None:
            on_result(result)
    return results


def run_depth_sweep(
    root: str | Path,
    class_name: str,
    *,
    depths: Sequence[int | str] = FIGURE1_DEPTHS,
    corrupt: int = 10,
    parameters: dict[str, Any] | None = None,
    backbone_at: Callable[[int | str], Any] | None = None,
    on_result: Callable[[ClassResult], None] | None = None,
    **options: Any,
) -> list[ClassResult]:
    """Evaluate one class at each hierarchy depth (supplement A, Figure 1), labelled ``depth N``.

    backbone_at: makes the `Backbone` of a depth, for a backbone that is not named but built by the caller;
    without it the depth is passed to `InReaCh` as its parameter. Other arguments as in `run_ablation`.
    """
    results = []
    for depth in depths:
        overrides = {**(parameters or {}), "depth": depth}
        extra = dict(options)
        if backbone_at is not None:
            extra["backbone"] = backbone_at(depth)
        # Figure 1 has no table of numbers; Tables 1 and 2 are for the full depth of 13.
        column = "position_embedding" if depth == 13 else None
        result = evaluate_class(
            root,
            class_name,
            corrupt=corrupt,
            parameters=overrides,
            label=f"depth {depth}",
            table2_column=column,
            **extra,
        )
        results.append(result)
        if on_result is not None:
            on_result(result)
    return results
