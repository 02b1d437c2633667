"""griffe's extension: docstrings as this package writes them, in the form that mkdocstrings reads.

Sections "Raises" name several errors in a sentence, and sections "Args" and "Attributes" several names in a line.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

import griffe

_SECTION = re.compile(r"(Args|Attributes|Raises)(?: \(.*\))?:(\s+\S.*)?$")
_SEVERAL = re.compile(r"    (\*{0,2}\w+(?:, \*{0,2}\w+)+): (.*)$")
_NEXT = re.compile(r"(^ {8,}|[.;)] )(\w+): ")


class Docstrings(griffe.Extension):
    """Rewrites every docstring before it is parsed."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if not obj.is_alias and obj.docstring is not None:
            obj.docstring.value = readable(obj.docstring.value, obj.members)


def readable(docstring: str, members: Collection[str] = ()) -> str:
    """The docstring with a paragraph for "Raises", and an entry for each name.

    Args:
        docstring: as `inspect.cleandoc` gives it.
        members: names of attributes, which begin an entry wherever they stand.
    """
    found = list[str]()
    for text in filter(None, re.split(r"^(?=\S)", docstring, flags=re.MULTILINE)):  # a section's lines are indented
        head, *lines = text.splitlines()
        header = _SECTION.match(head)
        if header is None:
            found += [head, *lines]
        elif header.group(1) == "Raises":
            told = [(header.group(2) or "").strip(), *(line.strip() for line in lines)]
            found += ["", f"**Raises:** {' '.join(filter(None, told))}", ""]
        else:
            name = header.group(1)
            found += [f"{name}:", *_entries(lines, members if name == "Attributes" else ())]
    return "\n".join(found)


def _entries(lines: list[str], members: Collection[str]) -> list[str]:
    """The lines of a section, each name with an entry of its own."""
    single = list[str]()
    for line in lines:
        begin = 0
        for match in _NEXT.finditer(line):
            if match.group(2) in members:
                if before := line[begin : match.start(2)].rstrip(" ;"):
                    single.append(("    " if begin else "") + before)
                begin = match.start(2)
        single.append(("    " if begin else "") + line[begin:])
    found, number = list[str](), 0
    while number < len(single):
        several = _SEVERAL.match(single[number])
        number += 1
        if several is None:
            found.append(single[number - 1])
            continue
        rest = list[str]()
        while number < len(single) and single[number].startswith("     "):
            rest.append(single[number])
            number += 1
        for name in several.group(1).split(", "):
            found += [f"    {name}: {several.group(2)}", *rest]
    return found
