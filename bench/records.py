"""What a bench leaves behind: cases as JSON, and the same as a Markdown table."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .timing import OURS, ratios, spread

SCHEMA = 1
Case = dict[str, Any]


def timed_case(
    name: str, seconds: Mapping[str, list[float]], *, data: str, ours: str = OURS, goal: str = "", **more: Any
) -> Case:
    """A race's outcome.

    Args:
        name: what was done, with its sizes.
        seconds: from `timing.race`.
        data: on what.
        ours: the contestant that the others are compared with.
        goal: what the project has promised for this case, if anything.
        more: JSON-able extras ("checks", "stages", ...).
    """
    return {
        "name": name,
        "kind": "time",
        "data": data,
        "ours": ours,
        "goal": goal,
        "seconds": {who: spread(values) for who, values in seconds.items()},
        "ratios": ratios(seconds, ours),
        **more,
    }


def value_case(name: str, values: Mapping[str, float], *, data: str, unit: str, goal: str = "", **more: Any) -> Case:
    """A case whose outcome is one number for each party, such as bytes over bytes."""
    return {
        "name": name, "kind": "value", "data": data, "unit": unit, "goal": goal, "values": dict(values), **more,
    }  # fmt: skip


def markdown(result: Mapping[str, Any]) -> str:
    """The whole result as Markdown; machine and settings first, then one table a section."""
    machine, commit = result["machine"], result["commit"]
    ours = machine["inreach_fast"]
    lines = [
        f"# Bench of inreach_fast {result['versions']['inreach_fast']}",
        "",
        f"- machine: {machine['cpu']} (family/model {machine['cpu_family_model']}), {machine['cores']} cores, "
        f"{machine['memory_gb']} GB; threads: ours {ours.get('threads', '?')}, torch {machine['torch']['threads']}",
        f"- instruction set: ours {ours.get('isa', 'none')}, torch {machine['torch']['cpu_capability']}, OpenBLAS "
        + ", ".join(sorted({f"{p['version']} {p['kernel']}" for p in machine["thread_pools"] if p["kernel"]})),
        "- versions: " + ", ".join(f"{name} {number}" for name, number in result["versions"].items()),
        f"- commit: {commit.get('id', 'unknown')}" + (" with local changes" if commit.get("modified") else ""),
        f"- {'quick run, ' if result['settings']['quick'] else ''}{result['date']}, {result['seconds']:.0f} s; "
        f"features: {result['settings']['features']}",
        f"- {result['settings']['note']}",
        "- Seconds are medians (least to greatest) of interleaved rounds. A ratio is the median over the rounds of "
        "the peer's time over ours: above 1, ours is faster.",
    ]
    for name, section in result["sections"].items():
        lines += ["", f"## {name}", ""]
        if section.get("error"):
            lines += [f"Did not run: {section['error']}"]
            continue
        lines += _table(section["cases"])
        lines += [f"\n{note}" for note in section.get("notes", [])]
    return "\n".join(lines) + "\n"


def _table(cases: list[Case]) -> list[str]:
    lines = ["| case | data | who | median (min to max) | ratio to ours | goal | checks |", "|---" * 7 + "|"]
    for case in cases:
        checks = "; ".join(f"{name}: {value}" for name, value in case.get("checks", {}).items())
        head = [case["name"], case["data"]]
        tail = [case["goal"], checks]
        for who, figure, ratio in _rows(case):
            lines.append("| " + " | ".join([*head, who, figure, ratio, *tail]) + " |")
            head, tail = ["", ""], ["", ""]
    return lines


def _rows(case: Case) -> list[tuple[str, str, str]]:
    if case["kind"] == "value":
        return [(who, f"{value:.3g} {case['unit']}", "") for who, value in case["values"].items()]
    rows = []
    for who, s in case["seconds"].items():
        ratio = case["ratios"].get(who)
        rows.append(
            (
                f"**{who}**" if who == case["ours"] else who,
                f"{_time(s['median'])} ({_time(s['min'])} to {_time(s['max'])})",
                f"{ratio['median']:.2f} ({ratio['min']:.2f} to {ratio['max']:.2f})" if ratio else "",
            )
        )
    return rows


def _time(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1e3:.3g} ms"


def save(result: Mapping[str, Any], json_path: Path, markdown_path: Path) -> None:
    """Writes both files; their folders are made."""
    for path, text in ((json_path, json.dumps(result, indent=1) + "\n"), (markdown_path, markdown(result))):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
