"""The figures of bench_describe.py as a case of the common table."""

from __future__ import annotations

from typing import Any

from . import bench_describe
from .records import Case, goal
from .timing import spread

OURS = "native"


def run(*, quick: bool = False) -> list[Case]:
    """Descriptors of one image: the unfolding route, the WideResNet50-2 forward, and every backend of ours."""
    return [as_case(bench_describe.run(quick))]


def as_case(result: dict[str, Any]) -> Case:
    """Convert the result to the table's schema; each contestant has its own number of rounds."""
    every = result.get("all_seconds") or {name: [value] for name, value in result["seconds"].items()}
    mine = every.get(OURS) or next(iter(every.values()))
    seconds = {name: spread(values) for name, values in every.items()}
    return {
        "name": f"describe, one image, {result['grid'][0] * result['grid'][1]} x {result['dim']}",
        "kind": "time",
        "data": "wide_resnet50_2's levels, random weights",
        "ours": OURS,
        "goals": [
            goal("50x unfolding", result["times_faster_than_unfolding"], least=50, unit="x", who="unfolding"),
            goal("under 10 % of the backbone", 100 * result["share_of_backbone"], most=10, unit=" %", who=OURS),
        ],
        "seconds": seconds,
        # The ratio of medians; its range is the widest that the rounds allow, since they are not paired.
        "ratios": {
            name: {
                "median": s["median"] / seconds[OURS]["median"],
                "min": s["min"] / max(mine),
                "max": s["max"] / min(mine),
                "values": [],
            }
            for name, s in seconds.items()
            if name != OURS and OURS in seconds
        },
        "checks": {
            "share of the backbone's time": f"{result['share_of_backbone']:.1%}",
            "largest difference from float64 unfolding": f"{result['largest_difference']:.1e}",
        },
    }
