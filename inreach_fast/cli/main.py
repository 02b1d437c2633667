"""Entry point of `inreach`: parse, run one command, turn errors into one sentence and an exit code."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

from .._version import __version__
from . import exit_codes
from .commands import add, audit, backends, compress, demo, evaluate, fit, forget, info, plan, predict
from .console import Console

_COMMANDS = (demo, plan, fit, predict, add, forget, audit, evaluate, compress, info, backends)


class _Parser(argparse.ArgumentParser):
    """Usage errors in the same form as every other error."""

    def error(self, message: str) -> NoReturn:
        print(f"inreach: error: {message}; see `{self.prog} --help`", file=sys.stderr)
        raise SystemExit(exit_codes.USAGE)


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = _Parser(
        prog="inreach",
        description="InReaCh: finds what is unusual in images, learnt from a folder that nobody sorted.",
        epilog=exit_codes.DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"inreach_fast {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=_Parser)
    for command in _COMMANDS:
        command.add_parser(subparsers)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `inreach` and return its exit code; `arguments` default to the process's own."""
    try:
        args = build_parser().parse_args(arguments)
    except SystemExit as stop:  # --help, --version, usage errors: argparse has said all
        return stop.code if isinstance(stop.code, int) else exit_codes.USAGE
    console = Console(quiet=args.quiet, json_output=args.json, progress=args.progress)
    try:
        _set_threads(args.threads)
        code: int = args.run(args, console)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        console.close()
        with contextlib.suppress(OSError):
            console.error("interrupted; nothing half-written was left")
        return exit_codes.INTERRUPTED
    except BrokenPipeError:
        console.close()
        _silence_stdout()
        return exit_codes.BROKEN_PIPE
    except Exception as error:
        console.close()
        if args.debug:
            traceback.print_exc()
        console.error(_sentence(error))
        return exit_codes.code_of(error)


def _set_threads(threads: int | None) -> None:
    if threads is None:
        return
    import torch

    from ..threads import set_num_threads

    set_num_threads(threads)
    torch.set_num_threads(threads)


def _sentence(error: Exception) -> str:
    """What went wrong, in a sentence, without the words of Python."""
    if isinstance(error, MemoryError):
        return f"out of memory{f' ({error})' if str(error) else ''}; use fewer or smaller images (--image-size)"
    if exit_codes.code_of(error) == exit_codes.INTERNAL:
        return f"internal error: {type(error).__name__}: {error} (--debug shows where; please report it)"
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{os.fspath(error.filename)}: {error.strerror}"
    return str(error) or type(error).__name__


def _silence_stdout() -> None:
    """Point stdout at nothing, so that Python's own flush at exit does not complain of the broken pipe."""
    with contextlib.suppress(OSError, ValueError):
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, sys.stdout.fileno())
        os.close(nothing)


if __name__ == "__main__":
    sys.exit(main())
