"""``python -m bench``: everything side by side, as a Markdown table and JSON."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from . import ROOT, environment, records

SECTIONS = ("search", "association", "describe", "whole", "memory")
LONG_SECTIONS = ("scale", "patchcore", "fit_large", "gpu")
"""Only on demand: gigabytes on disk, another environment, an hour, or a GPU."""


def main(arguments: list[str] | None = None) -> int:
    """Runs the sections asked for; 1 if one of them failed, else 0."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = _parser().parse_args(arguments)
    if options.device == "cuda":
        from . import gpu

        options.only = "gpu"
        reason = gpu.why_not()
        if reason is not None:
            print(f"SKIPPED: {reason}; nothing was measured on a GPU, and no file was written.")
            return 0
    environment.relaunch(arguments, options.threads)
    result = measure(options)
    folder = ROOT / "bench" / "results"
    json_path = options.json or folder / f"{_name(options)}.json"
    # First: whoever was to read the rest may be gone.
    records.save(result, json_path, options.markdown or json_path.with_suffix(".md"))
    print(records.markdown(result))
    return int(any(section.get("error") for section in result["sections"].values()))


def _name(options: argparse.Namespace) -> str:
    """Of the results: a part of the sections never overwrites the whole's."""
    parts = () if options.only == ",".join(SECTIONS) else tuple(name for name in options.only.split(",") if name)
    if not parts:
        return "quick" if options.quick else "full"
    return "-".join((*parts, *(("quick",) if options.quick else ())))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes and few rounds: under two minutes")
    parser.add_argument(
        "--only",
        default=",".join(SECTIONS),
        help=f"sections, with commas between (%(default)s; on demand: {', '.join(LONG_SECTIONS)})",
    )
    parser.add_argument("--threads", type=int, help="threads for everybody (default: each library's own)")
    parser.add_argument("--backbone", default="auto", help="a name that load_backbone knows (bench/README.md)")
    parser.add_argument("--weights", default="official", help="for --backbone: official, random or a file")
    parser.add_argument("--image-size", type=int, default=224, help="side of the network's input, pixels")
    parser.add_argument(
        "--scratch",
        type=Path,
        help="folder for large and cached files ($INREACH_BENCH_SCRATCH, else bench/results/tmp)",
    )
    parser.add_argument("--keep", action="store_true", help="scale: leave the descriptors' file for the next run")
    parser.add_argument("--sizes", type=_numbers, help="scale: sizes of the bank, with commas between")
    parser.add_argument("--anomalib-python", type=Path, help="patchcore: the Python of an environment with anomalib")
    parser.add_argument("--images", type=int, help="fit_large: how many (4000)")
    parser.add_argument(
        "--device", choices=("cpu", "cuda"), default="cpu", help="cuda: the section gpu alone, on the current GPU"
    )
    parser.add_argument("--json", type=Path, help="where the raw figures go (bench/results/quick|full.json)")
    parser.add_argument("--markdown", type=Path, help="where the table goes (beside the JSON)")
    return parser


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(sorted(int(float(part)) for part in text.split(",")))


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All sections asked for; one that fails is recorded and the others go on."""
    wanted = [name for name in options.only.split(",") if name]
    every = (*SECTIONS, *LONG_SECTIONS)
    unknown = sorted(set(wanted) - set(every))
    if unknown:
        raise SystemExit(f"--only: no section {', '.join(unknown)}; there are {', '.join(every)}")
    if options.scratch:
        os.environ["INREACH_BENCH_SCRATCH"] = str(options.scratch.absolute())  # the children look there too
    begun = time.perf_counter()
    runs, work = _runs(options)
    sections = {name: _section(name, runs[name]) for name in every if name in wanted}
    return {
        "schema": records.SCHEMA,
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "seconds": time.perf_counter() - begun,
        "settings": {
            "quick": options.quick,
            "threads": options.threads,
            "image_size": options.image_size,
            "features": work.features,
            "note": environment.BLAS_NOTE,
        },
        "machine": environment.describe_machine(),
        "versions": environment.versions(),
        "commit": environment.commit(),
        "sections": sections,
    }


def _runs(options: argparse.Namespace) -> tuple[dict[str, Callable[[], list[records.Case]]], Any]:
    # Imported here: `relaunch` has to come before anything that loads an OpenBLAS.
    from . import association, describe_cases, fit_large, gpu, memory, patchcore, scale, search, whole
    from .workload import Workload

    if options.threads is not None:
        import torch

        torch.set_num_threads(options.threads)
    quick = options.quick
    work = Workload(options.backbone, options.weights, image_size=options.image_size)
    extra = ("--backbone", options.backbone, "--weights", options.weights, "--image-size", str(options.image_size))
    return {
        "search": lambda: search.run(work, quick=quick),
        "association": lambda: association.run(work, quick=quick),
        "describe": lambda: describe_cases.run(quick=quick),
        "whole": lambda: whole.run(work, quick=quick),
        "memory": lambda: memory.run(quick=quick, extra=extra),
        "scale": lambda: scale.run(work, quick=quick, keep=options.keep, sizes=options.sizes),
        "patchcore": lambda: patchcore.run(work, options.anomalib_python, quick=quick, threads=options.threads),
        "gpu": lambda: gpu.run(work, quick=quick),
        "fit_large": lambda: fit_large.run(quick=quick, images=options.images, extra=extra),
    }, work


def _section(name: str, run: Callable[[], list[records.Case]]) -> dict[str, Any]:
    print(f"{name} ...", file=sys.stderr, flush=True)
    start = time.perf_counter()
    try:
        found: dict[str, Any] = {"cases": run()}
    except Exception as error:  # one section's failure must not cost the others' figures
        import traceback

        traceback.print_exc()
        # A message may hold paths, and results are published: the type is enough, the rest is on the screen.
        found = {"cases": [], "error": type(error).__name__}
    return {"seconds": time.perf_counter() - start, **found}


if __name__ == "__main__":
    raise SystemExit(main())
