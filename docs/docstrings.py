"""griffe's extension: docstrings as this package writes them, in the form that mkdocstrings reads.

Sections "Raises" name several errors in a sentence, and sections "Args" and "Attributes" several names in a line.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

_SECTION = re.compile(r"(Args|Attributes|Raises)(?: \(.*\))?:(\s+\S.*)?$")
_SEVERAL = re.compile(r"    (\*{0,2}\w+(?:, \*{0,2}\w+)+): (.*)$")


class Docstrings(griffe.Extension):
    """Rewrites every docstring before it is parsed."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if not obj.is_alias and obj.docstring is not None:
            obj.docstring.value = readable(obj.docstring.value)


def readable(docstring: str) -> str:
    """The docstring with a paragraph for "Raises", and a line for each name."""
    lines, found, section = docstring.splitlines(), list[str](), ""
    number = 0
    while number < len(lines):
        line = lines[number]
        number += 1
        header = _SECTION.match(line)
        if line and not line.startswith(" "):
            section = header.group(1) if header else ""
        if header and section == "Raises":
            told = [(header.group(2) or "").strip()]
            while number < len(lines) and (not lines[number] or lines[number].startswith(" ")):
                told.append(lines[number].strip())
                number += 1
            found += ["", f"**Raises:** {' '.join(filter(None, told))}", ""]
            continue
        several = _SEVERAL.match(line) if section in ("Args", "Attributes") else None
        if several:
            rest = []
            while number < len(lines) and lines[number].startswith("     "):
                rest.append(lines[number])
                number += 1
            for name in several.group(1).split(", "):
                found += [f"    {name}: {several.group(2)}", *rest]
            continue
        found.append("Attributes:" if line.startswith("Attributes (") and header else line)
    return "\n".join(found)
