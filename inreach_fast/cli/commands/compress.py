"""`inreach compress MODEL -o OUT`: a smaller model whose distances are bounded."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from ...estimator import InReaCh
from .. import options
from ..console import Console, format_number, format_seconds
from ..outputs import require_writable

DESCRIPTION = """Writes a model of fewer nominal patches. The distance of a patch to its nearest neighbour never shrinks
and grows by at most epsilon (with --score reachability it changes by at most epsilon, up or down); the threshold stays
the same. The compressed model inspects; it cannot grow."""


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", type=Path, metavar="MODEL", help="model file, written by `inreach fit`")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="OUT", help="model file to write")
    how = parser.add_mutually_exclusive_group(required=True)
    how.add_argument("--epsilon", type=float, metavar="E", help="largest change of a distance (L2, not squared)")
    words = "patches to keep: a number, or a share such as 0.1 or 10%%"
    how.add_argument("--to", type=_kept, metavar="N|SHARE", help=words)
    options.add_backend(parser)


def run(args: argparse.Namespace, console: Console) -> None:
    require_writable(args.output)
    begin = time.perf_counter()
    model = InReaCh.load(args.model, backend=args.backend)
    small = model.compress(args.epsilon, to=args.to, progress=console.progress)
    small.save(args.output)
    compression = small.nominal_.compression
    assert compression is not None
    change = "changed" if small.parameters.score == "reachability" else "grown"
    size, before, seconds = args.output.stat().st_size, len(model.nominal_), time.perf_counter() - begin
    record = {"model": args.model, "output": args.output, "bytes": size, "compression": compression.as_dict()}
    console.record(record | {"before": before, "seconds": round(seconds, 4)})
    console.result(
        f"{args.output}: {compression.kept:,} of {before:,} patches ({compression.kept / before:.1%}), "
        f"no distance {change} by more than {format_number(compression.epsilon)}; "
        f"{size / 1e6:.1f} MB, {format_seconds(seconds)}"
    )


def _kept(text: str) -> int | float:
    """argparse type: a number of patches, or a share between 0 and 1."""
    if text.isascii() and text.isdigit() and int(text) >= 1:
        return int(text)
    try:
        share = float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        share = 0.0
    if not 0 < share < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number of patches nor a share between 0 and 1")
    return share
