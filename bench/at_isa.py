"""Sections at each instruction set, ours and the peers limited alike, each in a process of its own.

The variables that limit the peers work only if they are set before a process starts (`environment.peer_environment`).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from . import ROOT, environment
from .records import Case

Run = Callable[[], list[Case]]


def only(option: str | None) -> str | None:
    """The one instruction set that ``--isa`` names, to which this process is limited; None if it names several."""
    return None if option is None or option == "all" or "," in option else option


def wanted(option: str | None, *, quick: bool) -> list[str]:
    """The instruction sets to measure at; none where the compiled engine is absent."""
    known = environment.instruction_sets()
    if option is None:
        return [name for name in known if name in (*known[:1], "avx2")] if quick else known
    if option == "all":
        return known
    names = option.split(",")
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise SystemExit(f"--isa: this machine has no {', '.join(unknown)}; give some of {', '.join(known)}")
    return names


def labelled(run: Run, isa: str) -> Run:
    """Cases that name their instruction set."""
    return lambda: [{**case, "isa": isa, "name": f"{case['name']}, {isa}"} for case in run()]


def each(section: str, isas: Sequence[str], options: Sequence[str], machines: dict[str, Any]) -> Run:
    """The section at each of ``isas``; ``machines`` receives the machine as each process saw it."""

    def run() -> list[Case]:
        cases: list[Case] = []
        for isa in isas:
            found = _child(["--only", section, "--isa", isa, *options])
            machines[isa] = found["machine"]
            cases += found["sections"][section]["cases"]
        return cases

    return run


def _child(options: Sequence[str]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "result.json"
        command = [sys.executable, "-m", "bench", *options, "--json", str(out)]
        env = {name: value for name, value in os.environ.items() if name != environment.RELAUNCHED}
        done = subprocess.run(command, cwd=ROOT, env=env, stdout=subprocess.DEVNULL, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"bench {' '.join(options)} ended with exit code {done.returncode}; its output is above")
        return dict(json.loads(out.read_text(encoding="utf-8")))
