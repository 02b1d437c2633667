"""`inreach reject MODEL IMAGE`: make what is like a region of an image anomalous."""

from __future__ import annotations

import argparse

from ..console import Console
from .feedback import add_giving_options, give

DESCRIPTION = """It was a missed defect: what is like a region of an image is anomalous from now on. The region seen
again exceeds the threshold; patches that are nearer to a nominal patch keep their scores."""


def add_options(parser: argparse.ArgumentParser) -> None:
    add_giving_options(parser)


def run(args: argparse.Namespace, console: Console) -> None:
    give(args, console, "reject")
