"""``python -m bench``: the benchmarks against named peers, as a Markdown table and JSON."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from . import ROOT, at_isa, environment, records

SECTIONS = ("search", "association", "describe", "whole", "predict_parts", "memory")
MORE_SECTIONS = ("brute",)
"""Part of others: for work on one thing."""
ISA_SECTIONS = ("search", "brute")
"""Measured at each instruction set, in processes of their own."""
LONG_SECTIONS = ("network", "latency", "scale", "patchcore", "fit_large", "gpu")
"""Run on request only: they need other packages, gigabytes of disk, another environment, an hour, or a GPU."""


def main(arguments: list[str] | None = None) -> int:
    """Run the requested sections; returns 1 if one of them failed, else 0."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = _parser().parse_args(arguments)
    if options.device == "cuda":
        from . import gpu

        options.only = "gpu"
        reason = gpu.why_not()
        if reason is not None:
            print(f"SKIPPED: {reason}; nothing was measured on a GPU, and no file was written.")
            return 0
    if options.isa is None and os.environ.get("INREACH_ISA", "auto") != "auto":
        options.isa = os.environ["INREACH_ISA"]
    environment.relaunch(arguments, options.threads, at_isa.only(options.isa))
    result = measure(options)
    folder = ROOT / "bench" / "results"
    json_path = options.json or folder / f"{_name(options)}.json"
    # Before printing: the reader of stdout may be gone.
    records.save(result, json_path, options.markdown or json_path.with_suffix(".md"))
    print(records.markdown(result))
    return int(any(section.get("error") for section in result["sections"].values()))


def _name(options: argparse.Namespace) -> str:
    """Name of the result files; some of the sections never overwrite the full result."""
    parts = () if options.only == ",".join(SECTIONS) else tuple(name for name in options.only.split(",") if name)
    if not parts:
        return "quick" if options.quick else "full"
    return "-".join((*parts, *(("quick",) if options.quick else ())))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    add = parser.add_argument
    add("--quick", action="store_true", help="small sizes and few rounds: about three minutes")
    more = ", ".join((*MORE_SECTIONS, *LONG_SECTIONS))
    words = f"sections, separated by commas; also {more} (default: %(default)s)"
    add("--only", default=",".join(SECTIONS), help=words)
    add("--threads", type=int, help="threads of every contestant (default: each library's own)")
    words = (
        f"instruction sets at which {' and '.join(ISA_SECTIONS)} are measured, separated by commas, ours and the peers "
        "limited alike; 'all' for all that the machine has (default: all; with --quick the widest and AVX2)"
    )
    add("--isa", help=words)
    add("--backbone", default="auto", help="backbone, see bench/README.md (default: auto)")
    words = "weights of --backbone: official, random or a file (default: official)"
    add("--weights", default="official", help=words)
    words = "side of the network's input, in pixels (default: 224)"
    add("--image-size", type=int, default=224, help=words)
    words = "folder for large and cached files (default: $INREACH_BENCH_SCRATCH, else bench/results/tmp)"
    add("--scratch", type=Path, help=words)
    add("--keep", action="store_true", help="scale: keep the file of descriptors for the next run")
    add("--sizes", type=_numbers, help="scale: sizes of the bank, separated by commas (default: all)")
    add("--anomalib-python", type=Path, help="patchcore: Python of an environment with anomalib")
    add("--images", type=int, help="fit_large, latency: number of training images (default: 4000, 128)")
    add("--frames", type=int, help="latency: frames of each contestant and pace (default: 200)")
    words = "cuda runs only the section gpu, on the current GPU (default: cpu)"
    add("--device", choices=("cpu", "cuda"), default="cpu", help=words)
    add("--json", type=Path, help="file for the raw figures (default: bench/results/full.json, or quick.json)")
    add("--markdown", type=Path, help="file for the table (default: next to the JSON)")
    return parser


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(sorted(int(float(part)) for part in text.split(",")))


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All requested sections; a failed one is recorded and the others go on."""
    wanted = [name for name in options.only.split(",") if name]
    every = (*SECTIONS, *MORE_SECTIONS, *LONG_SECTIONS)
    unknown = sorted(set(wanted) - set(every))
    if unknown:
        raise SystemExit(f"--only: unknown section {', '.join(unknown)}; give some of {', '.join(every)}")
    if options.scratch:
        os.environ["INREACH_BENCH_SCRATCH"] = str(options.scratch.absolute())  # for the child processes
    begun = time.perf_counter()
    runs, work = _runs(options)
    isas = at_isa.wanted(options.isa, quick=options.quick)
    machines: dict[str, Any] = {}
    for name in ISA_SECTIONS:
        if isas:
            runs[name] = (
                at_isa.labelled(runs[name], isas[0])
                if len(isas) == 1
                else at_isa.each(name, isas, _passed_on(options), machines)
            )
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
        "instruction_sets": machines,
        "versions": environment.versions(),
        "commit": environment.commit(),
        "sections": sections,
    }


def _runs(options: argparse.Namespace) -> tuple[dict[str, Callable[[], list[records.Case]]], Any]:
    # Imported here: `relaunch` must run before an OpenBLAS is loaded.
    from . import (
        association,
        brute,
        describe_cases,
        fit_large,
        gpu,
        latency,
        memory,
        network,
        patchcore,
        predict_parts,
        scale,
        search,
        whole,
    )
    from .workload import Workload

    if options.threads is not None:
        import torch

        torch.set_num_threads(options.threads)
    quick = options.quick
    work = Workload(options.backbone, options.weights, image_size=options.image_size)
    extra = ("--backbone", options.backbone, "--weights", options.weights, "--image-size", str(options.image_size))
    return {
        "search": lambda: search.run(work, quick=quick),
        "brute": lambda: brute.run(quick=quick, threads=options.threads),
        "association": lambda: association.run(work, quick=quick),
        "describe": lambda: describe_cases.run(quick=quick),
        "whole": lambda: whole.run(work, quick=quick),
        "predict_parts": lambda: predict_parts.run(work, quick=quick),
        "memory": lambda: memory.run(quick=quick, extra=extra),
        "network": lambda: network.run(options.image_size, quick=quick, threads=options.threads),
        "latency": lambda: latency.run(work, quick=quick, images=options.images, frames=options.frames),
        "scale": lambda: scale.run(work, quick=quick, keep=options.keep, sizes=options.sizes),
        "patchcore": lambda: patchcore.run(work, options.anomalib_python, quick=quick, threads=options.threads),
        "gpu": lambda: gpu.run(work, quick=quick),
        "fit_large": lambda: fit_large.run(quick=quick, images=options.images, extra=extra),
    }, work


def _passed_on(options: argparse.Namespace) -> list[str]:
    """Options for the processes of single instruction sets."""
    names = ("threads", "backbone", "weights", "image_size")
    values = ((name, getattr(options, name)) for name in names)
    given = [f"--{name.replace('_', '-')}={value}" for name, value in values if value is not None]
    return [*given, *(["--quick"] if options.quick else [])]


def _section(name: str, run: Callable[[], list[records.Case]]) -> dict[str, Any]:
    print(f"{name} ...", file=sys.stderr, flush=True)
    start = time.perf_counter()
    try:
        found: dict[str, Any] = {"cases": run()}
    except Exception as error:  # a failed section must not cost the figures of the others
        import traceback

        traceback.print_exc()
        # Results are published and a message may hold paths: record the type; the rest is on the screen.
        found = {"cases": [], "error": type(error).__name__}
    return {"seconds": time.perf_counter() - start, **found}


if __name__ == "__main__":
    raise SystemExit(main())
