"""Types of command-line options: from the text of an argument to its value."""

from __future__ import annotations

import argparse
import re


def positive_int(text: str) -> int:
    """argparse type: a whole number of at least 1."""
    if not (text.isascii() and text.isdigit() and int(text) >= 1):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def size(text: str) -> int | tuple[int, int]:
    """argparse type: `224` or `HEIGHTxWIDTH`."""
    found = re.fullmatch(r"([1-9]\d*)(?:[xX]([1-9]\d*))?", text.strip())
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size; give 224 or HEIGHTxWIDTH, for example 256x384")
    first, second = found.groups()
    return int(first) if second is None else (int(first), int(second))


def depth(text: str) -> int | str | tuple[str, ...]:
    """argparse type: `13`, `PC`, `reference` or level names `layer1.2,layer2.3`."""
    text = text.strip()
    if text.isdigit():
        return int(text)
    if text == "reference" or text.upper() == "PC":
        return text if text == "reference" else "PC"
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if not names:
        raise argparse.ArgumentTypeError("no depth is given; give 1 to 13, PC, reference, or level names a,b,c")
    return names
