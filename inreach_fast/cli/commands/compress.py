"""`inreach compress MODEL -o OUT`: a smaller model, with a guarantee."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

from ..console import Console
from ..exit_codes import SUCCESS
from ..options import common_options
from ..outputs import require_writable
from ..tables import format_number, format_seconds

if TYPE_CHECKING:
    from . import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    """Options of the command."""
    parser = subparsers.add_parser(
        "compress",
        parents=[common_options()],
        help="a smaller model, with a guarantee",
        description="Writes a model of fewer nominal patches. No patch's distance to the nearest one shrinks, and none "
        "grows by more than epsilon; the threshold stays. The compressed model inspects; it cannot grow.",
    )
    parser.add_argument("model", type=Path, metavar="MODEL", help="model file, written by `inreach fit`")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="OUT", help="model file to write")
    how = parser.add_mutually_exclusive_group(required=True)
    how.add_argument("--epsilon", type=float, metavar="E", help="greatest growth of a distance (L2, not squared)")
    how.add_argument(
        "--to", type=_to, metavar="N|SHARE", help="patches to keep: a number, or a share such as 0.1 or 10%%"
    )
    parser.add_argument("--backend", metavar="NAME", help="kernels: native, numba, torch (the model's)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, console: Console) -> int:
    """Read, compress, write."""
    from ...estimator import InReaCh

    require_writable(args.output)
    begin = time.perf_counter()
    model = InReaCh.load(args.model, backend=args.backend)
    small = model.compress(args.epsilon, to=args.to, progress=console.progress)
    console.close()
    small.save(args.output)
    made = small.nominal_.compression
    assert made is not None
    seconds = time.perf_counter() - begin
    console.record(
        {
            "model": args.model,
            "output": args.output,
            "bytes": args.output.stat().st_size,
            "compression": made.as_dict(),
            "before": len(model.nominal_),
            "seconds": round(seconds, 4),
        }
    )
    console.result(
        f"{args.output}: {made.kept:,} of {len(model.nominal_):,} patches ({made.kept / len(model.nominal_):.1%}), "
        f"no distance grown by more than {format_number(made.epsilon)}; "
        f"{args.output.stat().st_size / 1e6:.1f} MB, {format_seconds(seconds)}"
    )
    return SUCCESS


def _to(text: str) -> int | float:
    try:
        if text.endswith("%"):
            share = float(text[:-1]) / 100
            number: int | float = share if 0 < share < 1 else -1
        else:
            number = int(text) if text.isdigit() else float(text)
    except ValueError:
        number = -1
    if not (isinstance(number, int) and number >= 1) and not (isinstance(number, float) and 0 < number < 1):
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number of patches nor a share between 0 and 1")
    return number
