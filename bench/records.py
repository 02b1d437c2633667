"""Results of a bench: cases as JSON, and the same as Markdown tables."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .timing import OURS, ratios, spread

SCHEMA = 2
Case = dict[str, Any]
Goal = dict[str, Any]


def timed_case(
    name: str,
    seconds: Mapping[str, list[float]],
    *,
    data: str,
    ours: str = OURS,
    goals: Mapping[str, float] | None = None,
    **more: Any,
) -> Case:
    """The result of a race.

    Args:
        name: what was done, with its sizes.
        seconds: from `timing.race`.
        data: what it was measured on.
        ours: the contestant that the others are compared with.
        goals: peer -> lowest ratio of its time to ours that the project has promised.
        more: extra fields ("checks", "stages", ...).
    """
    found = ratios(seconds, ours)
    return {
        "name": name,
        "kind": "time",
        "data": data,
        "ours": ours,
        "goals": [
            goal(f"{least:g}x {peer}", found[peer]["median"], least=least, unit="x", who=peer)
            for peer, least in (goals or {}).items()
            if peer in found
        ],
        "seconds": {who: spread(values) for who, values in seconds.items()},
        "ratios": found,
        **more,
    }


def value_case(
    name: str,
    values: Mapping[str, float],
    *,
    data: str,
    unit: str,
    limits: Mapping[str, float] | None = None,
    **more: Any,
) -> Case:
    """A case with one number for each contestant, such as a ratio of bytes.

    Args:
        name, data: as in `timed_case`.
        values: contestant -> its number.
        unit: of the numbers.
        limits: contestant -> upper limit of its number.
        more: extra fields.
    """
    return {
        "name": name,
        "kind": "value",
        "data": data,
        "unit": unit,
        "goals": [
            goal(f"{who} under {most:g} {unit}", values[who], most=most, unit=f" {unit}", who=who)
            for who, most in (limits or {}).items()
        ],
        "values": dict(values),
        **more,
    }


def goal(
    text: str, figure: float, *, who: str, unit: str, least: float | None = None, most: float | None = None
) -> Goal:
    """A promise and the measured figure.

    Args:
        text: the promise.
        figure: what was measured, in ``unit`` (appended to the number).
        who: the row of the case's table that it belongs to.
        least, most: give one: the figure must reach ``least``, or stay below ``most``.
    """
    met = figure >= least if least is not None else most is not None and figure < most
    return {"goal": text, "figure": f"{figure:.3g}{unit}", "met": bool(met), "who": who}


def markdown(result: Mapping[str, Any]) -> str:
    """The result as Markdown: machine and settings, then a table for each section."""
    machine, commit = result["machine"], result["commit"]
    ours = machine["inreach_fast"]
    lines = [
        f"# Bench of inreach_fast {result['versions']['inreach_fast']}",
        "",
        f"- machine: {machine['cpu']} (family/model {machine['cpu_family_model']}), {machine['cores']} cores, "
        f"{machine['memory_gb']} GB; threads: ours {ours.get('threads', '?')}, torch {machine['torch']['threads']}",
        f"- instruction set: {_instruction_set(machine)}",
        *(f"- at {isa}: {_instruction_set(limited)}" for isa, limited in result.get("instruction_sets", {}).items()),
        "- versions: " + ", ".join(f"{name} {number}" for name, number in result["versions"].items()),
        f"- commit: {commit.get('id', 'unknown')}" + (" with local changes" if commit.get("modified") else ""),
        f"- {'quick run, ' if result['settings']['quick'] else ''}{result['date']}, {result['seconds']:.0f} s; "
        f"features: {result['settings']['features']}",
        f"- {result['settings']['note']}",
        "- Seconds are medians (least to greatest) of interleaved rounds. A ratio is the median over the rounds of "
        "the peer's time over ours: above 1, ours is faster.",
    ]
    lines += _goals(result["sections"])
    for name, section in result["sections"].items():
        lines += ["", f"## {name}", ""]
        if section.get("error"):
            lines += [f"Did not run: {section['error']}"]
            continue
        lines += _table(section["cases"])
        lines += [f"\n{note}" for note in section.get("notes", [])]
    return "\n".join(lines) + "\n"


def _instruction_set(machine: Mapping[str, Any]) -> str:
    blas = sorted({f"{p['version']} {p['kernel']}" for p in machine["thread_pools"] if p["kernel"]})
    ours, torch = machine["inreach_fast"].get("isa", "none"), machine["torch"]["cpu_capability"]
    return f"ours {ours}, torch {torch}, OpenBLAS {', '.join(blas)}"


def _goals(sections: Mapping[str, Any]) -> list[str]:
    lines = ["", "## Goals", "", "| case | data | goal: figure | met |", "|---" * 4 + "|"]
    found = [
        f"| {case['name']} | {case['data']} | {goal['goal']}: {goal['figure']} | {'yes' if goal['met'] else '**no**'} |"
        for section in sections.values()
        for case in section["cases"]
        for goal in case["goals"]
    ]
    return lines + found if found else []


def _table(cases: list[Case]) -> list[str]:
    lines = ["| case | data | who | median (min to max) | ratio to ours | goal | checks |", "|---" * 7 + "|"]
    for case in cases:
        checks = "; ".join(f"{name}: {value}" for name, value in case.get("checks", {}).items())
        goals = {goal["who"]: f"{goal['goal']}: {goal['figure']}" for goal in case["goals"]}
        head, tail = [case["name"], case["data"]], checks
        for who, figure, ratio in _rows(case):
            lines.append("| " + " | ".join([*head, who, figure, ratio, goals.get(who.strip("*"), ""), tail]) + " |")
            head, tail = ["", ""], ""
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
    """Write both files and make their folders."""
    for path, text in ((json_path, json.dumps(result, indent=1) + "\n"), (markdown_path, markdown(result))):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
