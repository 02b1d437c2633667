"""`inreach info MODEL`: what a model file holds."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ..console import Console
from ..exit_codes import SUCCESS
from ..options import common_options
from ..tables import format_table

if TYPE_CHECKING:
    from . import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    """Options of the command."""
    parser = subparsers.add_parser(
        "info", parents=[common_options()], help="what a model file holds",
        description="Shows what a model file holds: backbone, parameters, counts, threshold. The file is checked "
        "as a whole; the backbone is not loaded.",
    )  # fmt: skip
    parser.add_argument("model", type=Path, metavar="MODEL", help="model file")
    parser.set_defaults(run=run)
