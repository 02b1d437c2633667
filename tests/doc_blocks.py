"""The code blocks of Markdown pages, and the lines of shell in them."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

NOTEBOOK = "docs/notebook.ipynb"
_SHOWN = "<!-- not run: "


def pages() -> list[str]:
    """Every Markdown page and the notebook, by its path in the repository."""
    folders = ("", "docs/", "docs/howto/", "bench/", "examples/cpp/", "csrc/", "csrc/**/")
    found = {path.relative_to(ROOT).as_posix() for folder in folders for path in ROOT.glob(f"{folder}*.md")}
    return [*sorted(found), NOTEBOOK]


@dataclass(frozen=True)
class Block:
    """A code block.

    Attributes:
        page, line: where its first line of code stands, counted from 1.
        language: as behind the fence; "" for a block that is indented by four spaces.
        reason: why it cannot be run, from the comment ``<!-- not run: reason -->`` above it.
    """

    page: str
    line: int
    language: str
    text: str
    reason: str | None

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(page: str) -> list[Block]:
    """The code blocks of a page, in order; of a notebook the cells of code, whose line is their number."""
    if page == NOTEBOOK:
        cells = json.loads((ROOT / page).read_text(encoding="utf-8"))["cells"]
        code = [(i, "".join(cell["source"])) for i, cell in enumerate(cells, 1) if cell["cell_type"] == "code"]
        return [Block(page, number, "python", text + "\n", None) for number, text in code]
    lines = (ROOT / page).read_text(encoding="utf-8").splitlines()
    assert not any(line.lstrip().startswith("~~~") for line in lines), f"{page}: write fences with ```"
    found, number, reason, in_list = [], 0, None, False
    while number < len(lines):
        line = lines[number]
        begin = number + 1
        fence = re.match(r"(\s*)(```+)(\w*)", line)
        if fence:
            indent, ticks, language = fence.groups()
            end = next(i for i in range(begin, len(lines)) if lines[i].strip() == ticks)
            text = "\n".join(code.removeprefix(indent) for code in lines[begin:end])
            found.append(Block(page, begin + 1, language, text + "\n", reason))
            number = end
        elif line.startswith("    ") and not in_list and not lines[number - 1].strip():
            end = next((i for i in range(number, len(lines)) if lines[i] and lines[i][:4].strip()), len(lines))
            text = "\n".join(code[4:] for code in lines[number:end]).rstrip()
            found.append(Block(page, number + 1, "", text + "\n", reason))
            number = end - 1
        if line.strip():
            in_list = bool(re.match(r"\s*([-*]|\d+\.) ", line)) or (in_list and line.startswith(" "))
            reason = line[len(_SHOWN) : line.index(" -->")] if line.startswith(_SHOWN) else None
        number += 1
    return found


def commands(block: Block) -> list[list[str]]:
    """The commands of a block of shell, as words; comments are left out, ``&&`` separates."""
    found: list[list[str]] = []
    for line in block.text.replace("\\\n", " ").splitlines():
        words: list[str] = []
        for word in [*shlex.split(line, comments=True), "&&"]:
            if word != "&&":
                words.append(word)
            elif words:
                found.append(words)
                words = []
    return found
