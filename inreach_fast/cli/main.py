"""Entry point of `inreach`: parse the command line, run one command, turn an error into one line and an exit code."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

from .._version import __version__
from ..errors import InReachError, ParameterError
from ..system.threads import set_num_threads
from . import exit_codes
from .console import Console

# Module in `commands` -> its line in `inreach --help`, which imports none of them.
_COMMANDS = {
    "demo": "try the whole method on photographs that come with it",
    "plan": "estimate the memory, disk and time of a fit",
    "fit": "learn from a folder of images",
    "predict": "inspect images",
    "watch": "inspect images as they arrive in a folder",
    "serve": "inspect images that are sent over HTTP",
    "add": "add images to a model",
    "forget": "remove images from a model",
    "audit": "find the defects in a training folder",
    "evaluate": "run the paper's protocol on labelled data",
    "compress": "make a smaller model with bounded distances",
    "threshold": "show or set a model's threshold",
    "accept": "make a region of an image nominal: a false alarm",
    "reject": "make what is like a region of an image anomalous: a missed defect",
    "feedback": "list or undo what was accepted and rejected",
    "info": "show what a model file holds",
    "backends": "list the kernel backends of this machine",
    "runtimes": "list what can compute the network, and the cache of exported networks",
}


class _Parser(argparse.ArgumentParser):
    """Usage errors in the same form as every other error."""

    def error(self, message: str) -> NoReturn:
        print(f"inreach: error: {message}; see `{self.prog} --help`", file=sys.stderr)
        raise SystemExit(exit_codes.USAGE)


def build_parser(command: str | None = None) -> argparse.ArgumentParser:
    """The parser of the command line, with the options of one command, or of all."""
    parser = _Parser(
        prog="inreach",
        description="InReaCh: finds anomalies in images, learnt from a folder of unsorted images.",
        epilog=exit_codes.DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"inreach_fast {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=_Parser)
    for name, words in _COMMANDS.items():
        options = subparsers.add_parser(name, help=words)
        if command in (name, None):
            module = import_module(f".commands.{name}", __package__)
            options.description = module.DESCRIPTION
            module.add_options(options)
            group = options.add_argument_group("output and running")
            add = group.add_argument
            add("-q", "--quiet", action="store_true", help="print results and errors only")
            add("--json", action="store_true", help="print the result as JSON on stdout, and nothing else there")
            words = "show progress on stderr (default: if stderr is a terminal)"
            add("--progress", action=argparse.BooleanOptionalAction).help = words  # without Python's own default
            words = """CPU threads, or "auto": measured on the machine as it is, by commands that predict (default: all
                cores)"""
            add("--threads", type=_threads, metavar="N|auto", help=words)
            words = "folder for exported networks (default: $INREACH_NETWORK_CACHE, or the user's cache folder)"
            add("--network-cache", metavar="DIR", help=words)
            add("--debug", action="store_true", help="show the traceback of an error")
            options.set_defaults(run=module.run)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `inreach` and return its exit code; `arguments` default to the process's own."""
    words = sys.argv[1:] if arguments is None else arguments
    try:
        args = build_parser(next((word for word in words if word in _COMMANDS), "")).parse_args(words)
    except SystemExit as stop:  # --help, --version or a usage error; argparse has printed the text
        return stop.code if isinstance(stop.code, int) else exit_codes.USAGE
    console = Console(quiet=args.quiet, json_output=args.json, progress=args.progress)
    try:
        if args.threads != "auto":
            _set_threads(args.threads)
        if args.network_cache is not None:
            os.environ["INREACH_NETWORK_CACHE"] = args.network_cache  # workers inherit it
        with console.log_notes(), console.warning_notes():
            code: int | None = args.run(args, console)
        return exit_codes.SUCCESS if code is None else code
    except KeyboardInterrupt:
        with contextlib.suppress(OSError):
            console.error("interrupted: no partial file is left")
        return exit_codes.INTERRUPTED
    except BrokenPipeError:
        _silence_stdout()
        return exit_codes.BROKEN_PIPE
    except Exception as error:
        console.progress.close()
        if args.debug:
            traceback.print_exc()
        console.error(_message(error))
        return exit_codes.code_of(error)
    finally:
        console.progress.close()


def _threads(text: str) -> int | str:
    """argparse type: a whole number, or `auto`."""
    return text if text == "auto" else int(text)


def _set_threads(threads: int | None) -> None:
    if threads is not None:
        try:
            set_num_threads(threads)
        except ParameterError as error:
            raise ParameterError(str(error).replace("set_num_threads", "--threads")) from None
        import torch

        torch.set_num_threads(threads)


def _message(error: Exception) -> str:
    """What went wrong and what to do, without Python's own terms."""
    if isinstance(error, MemoryError) and not isinstance(error, InReachError):
        return f"memory: {str(error) or 'not enough'}; use fewer or smaller images (--image-size)"
    if exit_codes.code_of(error) == exit_codes.INTERNAL:
        return f"internal error: {type(error).__name__}: {error}; run again with --debug and report the traceback"
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{os.fspath(error.filename)}: {error.strerror}; check the path and its permissions"
    return str(error) or type(error).__name__


def _silence_stdout() -> None:
    """Point stdout at the null device, so that Python's flush at exit does not fail on the closed pipe."""
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
