"""`inreach evaluate ROOT`: the paper's protocol on labelled data, beside the supplement's figures."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import ParameterError
from ..console import Console
from ..exit_codes import SUCCESS
from ..options import common_options, estimator_options, parameters_of
from ..outputs import require_folder, require_writable

if TYPE_CHECKING:
    from ...evaluation import ClassResult
    from . import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    """Options of the command."""
    parser = subparsers.add_parser(
        "evaluate",
        parents=[estimator_options(folder=False, leave_out=("--depth", "--preset")), common_options()],
        help="the paper's protocol on labelled data",
        description="Fits and evaluates classes of a labelled data set as the paper does, and prints the "
        "figures beside the supplement's. Figures come with and without the test images that were trained on.",
    )
    add = parser.add_argument
    add("root", type=Path, metavar="ROOT", help="folder that holds the classes")
    add("--layout", choices=("mvtec", "folder"), default="mvtec", help="of the data set (mvtec)")
    add(
        "--class",
        dest="classes",
        action="append",
        metavar="C",
        help="class to evaluate; repeatable; all (default)",
    )
    add(
        "--corrupt",
        type=_numbers,
        default=[0],
        metavar="N[,N...]",
        help="corruptions: 0, 10, 40 in the paper (0)",
    )
    add("--preset", choices=("default", "paper", "reference"), default="paper", help="starting values (paper)")
    add(
        "--shuffle",
        type=_numbers,
        default=[None],
        metavar="SEED[,SEED...]",
        help="seeded order of the training list",
    )
    add("--ablation", action="store_true", help="the seven rows of the supplement's Table 2")
    add("--depth", metavar="LIST", help="hierarchy depths, e.g. 1..13,PC (supplement's Figure 1)")
    add("--cache", type=Path, metavar="DIR", help="keep descriptors here between runs (large)")
    add("--csv", type=Path, metavar="FILE", help="write the figures as CSV")
    add("--json-file", type=Path, metavar="FILE", help="write everything as JSON (--json prints it)")
    add("--markdown", action="store_true", help="print the table as Markdown")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, console: Console) -> int:
    """Every class, corruption level and order in turn; the files are rewritten after each: none is lost."""
    from ...evaluation import list_classes
    from ...evaluation.report import format_summary, format_table, write_csv, write_json

    require_writable(args.csv)
    require_writable(args.json_file)
    require_folder(args.cache)
    depths = _depths(args)
    classes = args.classes or ["all"]
    if "all" in classes:
        classes = list_classes(args.root, layout=args.layout)
    results: list[ClassResult] = []

    def keep(result: ClassResult) -> None:
        results.append(result)
        if args.csv is not None:
            write_csv(results, args.csv)
        if args.json_file is not None:
            write_json(results, args.json_file)
        console.close()
        console.note(_line(result))

    for class_name in dict.fromkeys(classes):
        for corrupt in args.corrupt:
            for shuffle in args.shuffle:
                _evaluate(args, console, class_name, corrupt, shuffle, depths, keep)
    console.record([result.as_dict() for result in results])
    style = "markdown" if args.markdown else "plain"
    console.result(format_table(results, style=style).rstrip("\n"))  # type: ignore[arg-type]
    if len(args.shuffle) > 1:
        console.result("\n" + format_summary(results, style=style).rstrip("\n"))  # type: ignore[arg-type]
    return SUCCESS


def _evaluate(
    args: argparse.Namespace,
    console: Console,
    class_name: str,
    corrupt: int,
    shuffle: int | None,
    depths: list[int | str] | None,
    keep: Any,
) -> None:
    from ...evaluation import evaluate_class, run_ablation, run_depth_sweep

    parameters = {name: value for name, value in parameters_of(args).items() if name != "preset" and name != "depth"}
    options: dict[str, Any] = {
        "corrupt": corrupt,
        "shuffle": shuffle,
        "preset": args.preset,
        "layout": args.layout,
        "cache": args.cache,
        "progress": console.progress,
    }
    if args.ablation:
        if depths is not None:
            parameters["depth"] = depths[0]
        run_ablation(args.root, class_name, parameters=parameters, on_result=keep, **options)
    elif depths is not None:
        run_depth_sweep(args.root, class_name, depths=depths, parameters=parameters, on_result=keep, **options)
    else:
        keep(evaluate_class(args.root, class_name, parameters=parameters, **options))


def _depths(args: argparse.Namespace) -> list[int | str] | None:
    from ...evaluation import depth_list

    if args.depth is None:
        return None
    depths = depth_list(args.depth)
    if args.ablation and len(depths) > 1:
        raise ParameterError("--depth: with --ablation give one depth, not several")
    return depths


def _numbers(text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r}: give whole numbers of at least 0, e.g. 0,10,40")
    return list(dict.fromkeys(int(part) for part in parts))


def _line(result: ClassResult) -> str:
    words = [result.class_name, *([result.label] if result.label else []), f"{result.corrupt} corruptions"]
    if result.shuffle is not None:
        words.append(f"order {result.shuffle}")
    image, pixel = result.with_overlap.image_auroc, result.with_overlap.pixel_auroc
    seconds = result.seconds["total"]
    return f"{', '.join(words)}: image AUROC {_three(image)}, pixel AUROC {_three(pixel)}, {seconds:.0f} s"


def _three(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
