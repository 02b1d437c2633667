"""`inreach evaluate ROOT`: the paper's protocol on labelled data, next to the supplement's figures."""

from __future__ import annotations

import argparse
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from ... import evaluation
from ...errors import ParameterError
from .. import options
from ..console import Console
from ..outputs import require_folders, require_writable
from ..pages.evaluation import evaluation_page
from ..pages.html import write_page

DESCRIPTION = """Fits and evaluates the classes of a labelled data set as the paper does, and prints the figures next to
the supplement's, with and without the test images that were trained on. The defaults are those of the paper preset.
Of the options below, other methods than InReaCh use only those of the backbone and the images, without regions, tiles
and quantization; their own parameters are those of their papers."""


def add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("root", type=Path, metavar="ROOT", help="folder that holds the classes")
    words = "folder layout of the data set (default: mvtec)"
    add("--layout", choices=("mvtec", "folder"), default="mvtec", help=words)
    words = "class to evaluate; can be repeated (default: all)"
    add("--class", dest="classes", action="append", metavar="C", help=words)
    words = "numbers of defective images to train on; the paper has 0, 10 and 40 (default: 0)"
    add("--corrupt", type=_numbers, default=[0], metavar="N[,N...]", help=words)
    words = "seeds to shuffle the training images with, a run for each (default: not shuffled)"
    add("--shuffle", type=_numbers, default=[None], metavar="SEED[,SEED...]", help=words)
    words = f"methods to evaluate, a run for each: {', '.join(evaluation.METHODS)}; can be repeated (default: inreach)"
    add("--method", dest="methods", type=_methods, action="extend", metavar="M[,M...]", help=words)
    words = "updates of the weights of cutpaste and patchsvdd (default: those of their papers, days on a CPU)"
    add("--training-steps", type=options.positive_int, metavar="N", help=words)
    words = "leave out and name images that cannot be read, or whose masks cannot"
    add("--skip-bad", action="store_true", help=words)
    add("--ablation", action="store_true", help="run the seven rows of the supplement's Table 2")
    words = "hierarchy depths to run, for example 1..13,PC as in the supplement's Figure 1 (default: 13)"
    add("--depth", metavar="LIST", help=words)
    words = (
        "keep descriptors, and checkpoints of methods that train networks, here between runs; large (default: not kept)"
    )
    add("--cache", type=Path, metavar="DIR", help=words)
    add("--csv", type=Path, metavar="FILE", help="write the figures as CSV (default: not written)")
    add("--json-file", type=Path, metavar="FILE", help="write all results as JSON (default: not written)")
    words = "write a page with curves, kinds of defects, best and worst cases and speed (default: not written)"
    add("--report", type=Path, metavar="FILE.html", help=words)
    add("--markdown", action="store_true", help="print the table as Markdown")
    options.add_parameters(parser, preset="paper", leave_out=("depth",))


def run(args: argparse.Namespace, console: Console) -> None:
    require_writable(args.csv, args.json_file, args.report)
    require_folders(args.cache)
    results: list[evaluation.ClassResult] = []

    def keep(result: evaluation.ClassResult) -> None:  # the files are rewritten after each, so that none is lost
        results.append(result)
        if args.csv is not None:
            evaluation.write_csv(results, args.csv)
        if args.json_file is not None:
            evaluation.write_json(results, args.json_file)
        if args.report is not None:
            write_page(args.report, evaluation_page(results, str(args.root)))
        words = [result.class_name, *([result.label] if result.label else []), f"{result.corrupt} corruptions"]
        if result.shuffle is not None:
            words.append(f"order {result.shuffle}")
        figures = (result.with_overlap.image_auroc, result.with_overlap.pixel_auroc)
        image, pixel = ("-" if value is None else f"{value:.3f}" for value in figures)
        seconds = f"{result.seconds['total']:.0f} s"
        for remark in result.remarks:
            console.note(f"{result.class_name}: {remark}")
        console.note(f"{', '.join(words)}: image AUROC {image}, pixel AUROC {pixel}, {seconds}")

    depths = None if args.depth is None else evaluation.depth_list(args.depth)
    parameters = options.parameters_of(args)
    preset = parameters.pop("preset", "paper")
    parameters.pop("depth")  # the list that the command takes
    methods = list(dict.fromkeys(args.methods or ["inreach"]))
    if methods != ["inreach"] and (args.ablation or depths is not None):
        name = "--ablation" if args.ablation else "--depth"
        raise ParameterError(f"--method: {name} works with inreach alone; leave {name} or the other methods out")
    if args.training_steps is not None and not set(methods) & set(evaluation.TRAINED_METHODS):
        trained = " or ".join(evaluation.TRAINED_METHODS)
        raise ParameterError(f"--training-steps: {methods[0]} trains no network; give --method {trained} as well")
    evaluate: Any = evaluation.evaluate_class
    if args.ablation:
        if depths is not None and len(depths) > 1:
            raise ParameterError("--depth: several depths are given with --ablation; give one")
        parameters |= {"depth": depths[0]} if depths else {}
        evaluate = partial(evaluation.run_ablation, on_result=keep)
    elif depths is not None:
        evaluate = partial(evaluation.run_depth_sweep, depths=depths, on_result=keep)
    settings = {"preset": preset, "layout": args.layout, "cache": args.cache, "parameters": parameters}
    settings |= {"progress": console.progress, "skip_bad": args.skip_bad, "details": args.report is not None}
    classes = args.classes or ["all"]
    if "all" in classes:
        classes = evaluation.list_classes(args.root, layout=args.layout)
    for class_name, corrupt, shuffle, method in product(dict.fromkeys(classes), args.corrupt, args.shuffle, methods):
        if methods != ["inreach"]:
            settings |= {"method": method, "label": evaluation.METHODS[method], "training_steps": args.training_steps}
        result = evaluate(args.root, class_name, corrupt=corrupt, shuffle=shuffle, **settings)
        if evaluate is evaluation.evaluate_class:
            keep(result)
    console.record([result.as_dict() for result in results])
    style: Any = "markdown" if args.markdown else "plain"
    console.result(evaluation.format_table(results, style=style).rstrip("\n"))
    if len(args.shuffle) > 1:
        console.result("\n" + evaluation.format_summary(results, style=style).rstrip("\n"))


def _methods(text: str) -> list[str]:
    """argparse type: names of methods with commas between."""
    names = [part.strip() for part in text.split(",")]
    try:
        return [evaluation.check_method(name) for name in names]
    except ParameterError as error:
        raise argparse.ArgumentTypeError(str(error).removeprefix("method: ")) from None


def _numbers(text: str) -> list[int]:
    """argparse type: whole numbers with commas between."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of whole numbers; give for example 0,10,40")
    return list(dict.fromkeys(int(part) for part in parts))
