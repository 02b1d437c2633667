"""`inreach accept MODEL IMAGE`: make a region of an image nominal."""

from __future__ import annotations

import argparse

from ..console import Console
from .feedback import add_giving_options, give

DESCRIPTION = """It was a false alarm: the patches of a region of an image are nominal from now on. They count as if
they had been nominal patches from the start; the threshold stays."""


def add_options(parser: argparse.ArgumentParser) -> None:
    add_giving_options(parser)


def run(args: argparse.Namespace, console: Console) -> None:
    give(args, console, "accept")
