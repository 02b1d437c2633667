"""The supplement's Table 2 (ablation and alternative scores) and Figure 1 (hierarchy depth)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from ..errors import ParameterError
from .protocol import ClassResult, evaluate_class
from .supplement import PROPOSED

OnResult: TypeAlias = Callable[[ClassResult], None]


@dataclass(frozen=True)
class AblationRow:
    """One configuration of Table 2: its column's key and name there, and the parameters that it changes."""

    key: str
    name: str
    overrides: dict[str, Any]


# Alignment only serves positions (supplement D), so a row without positions has none.
_BOTH: dict[str, Any] = {"span_filter": True, "spread_filter": True, "score": "nearest"}
_SIGMA = {**_BOTH, "position": "never", "align": "never"}
_SPAN = {**_SIGMA, "spread_filter": False}
_LOCAL = {**_SPAN, "span_filter": False}
_PROPOSED = {**_BOTH, "position": "auto"}

#: Table 2's seven columns in its order. The first five are cumulative; the last two change the score of the proposed
#: one. All else (the aggregation's width, alignment of the proposed rows) is the preset's.
ABLATION_ROWS: tuple[AblationRow, ...] = (
    AblationRow("base", "Base InReaCh", {"neighbourhood": 1, **_LOCAL}),
    AblationRow("local_aggregation", "Local Agg.", _LOCAL),
    AblationRow("span_filter", "Span Filter", _SPAN),
    AblationRow("sigma_filter", "σ Filter", _SIGMA),
    AblationRow(PROPOSED, "Pos. Embedding", _PROPOSED),
    AblationRow("mahalanobis", "Mahalanobis", {**_PROPOSED, "score": "mahalanobis"}),
    AblationRow("patchcore", "PatchCore", {**_PROPOSED, "score": "patchcore"}),
)

#: Figure 1's abscissa.
FIGURE1_DEPTHS: tuple[int | str, ...] = (*range(1, 14), "PC")


def depth_list(text: str) -> list[int | str]:
    """Depths from text: ``"1..13,PC"`` is 1 to 13 and PatchCore's choice of levels; repetitions are dropped.

    Raises:
        ParameterError: anything else; quotes the wrong part.
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
    on_result: OnResult | None = None,
    **options: Any,
) -> list[ClassResult]:
    """Evaluates one class in Table 2's configurations, in its order.

    Args:
        root, class_name, corrupt, options: see `evaluate_class`. With a cache the backbone describes each image twice,
            once for each aggregation width.
        rows: keys of the configurations; None: all.
        parameters: overrides for every row; a row's own come after them.
        on_result: called after each row.

    Raises:
        ParameterError: an unknown row. And what `evaluate_class` raises.
    """
    keys = [row.key for row in ABLATION_ROWS]
    if unknown := sorted(set(rows or ()) - set(keys)):
        raise ParameterError(f"rows: unknown {', '.join(unknown)}; choose from {', '.join(keys)}")
    runs = (
        {"parameters": row.overrides, "label": row.name, "table2_column": row.key}
        for row in ABLATION_ROWS
        if rows is None or row.key in rows
    )
    return _run(runs, parameters, on_result, root=root, class_name=class_name, corrupt=corrupt, **options)


def run_depth_sweep(
    root: str | Path,
    class_name: str,
    *,
    depths: Sequence[int | str] = FIGURE1_DEPTHS,
    corrupt: int = 10,
    parameters: dict[str, Any] | None = None,
    on_result: OnResult | None = None,
    **options: Any,
) -> list[ClassResult]:
    """Evaluates one class at each hierarchy depth (supplement A, Figure 1), labelled ``depth N``.

    The other arguments are those of `run_ablation`.
    """
    runs = (
        {
            "parameters": {"depth": depth},
            "label": f"depth {depth}",
            # Figure 1 has no table of numbers; Tables 1 and 2 are for depth 13.
            "table2_column": PROPOSED if depth == 13 else None,
        }
        for depth in depths
    )
    return _run(runs, parameters, on_result, root=root, class_name=class_name, corrupt=corrupt, **options)


def _run(
    runs: Iterable[dict[str, Any]], parameters: dict[str, Any] | None, on_result: OnResult | None, **options: Any
) -> list[ClassResult]:
    results = []
    for run in runs:
        overrides = (parameters or {}) | run.pop("parameters")
        results.append(evaluate_class(parameters=overrides, **options, **run))
        if on_result is not None:
            on_result(results[-1])
    return results
