"""Templates filled with escaped values, and the frame that all pages share.

Names of files are hostile input: whatever they contain, they are shown as text. A page has a content security policy
that allows its own style and script, by their hashes, and images of the page itself; nothing can be loaded, and nothing
that a value smuggled in could run.
"""

from __future__ import annotations

import base64
import hashlib
import html
import unicodedata
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from string import Template
from typing import Any

from ..._version import __version__
from ..outputs import write_whole

_TEMPLATES = Path(__file__).parent / "templates"
_JOINERS = "\u200c\u200d"  # part of words in several scripts
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


class Html(str):
    """Text that is HTML already, and is not escaped again."""


def printable(text: str) -> str:
    """The text on one line: control characters, marks of direction and undecodable bytes as escapes such as ``\\x0a``.

    So a file's name can be shown and written to a list whatever it contains.
    """
    if text.isascii() and text.isprintable():
        return text
    hidden = (character not in _JOINERS and unicodedata.category(character) in _HIDDEN for character in text)
    return "".join(_escaped(c) if is_hidden else c for c, is_hidden in zip(text, hidden, strict=True))


def _escaped(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is not UTF-8, as Python reads file names
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def escape(value: Any) -> Html:
    """A value as HTML: `Html` as it is, anything else as text, also within an attribute."""
    return value if isinstance(value, Html) else Html(html.escape(printable(str(value)), quote=True))


def fill(template: str, **values: Any) -> Html:
    """The template file with its ``${names}`` replaced by the escaped values."""
    return Html(_template(template).substitute({name: escape(value) for name, value in values.items()}))


def joined(parts: Iterable[Html], between: str = "") -> Html:
    """Several pieces of HTML, one after the other."""
    return Html(between.join(parts))


@lru_cache(maxsize=64)
def _template(name: str) -> Template:
    return Template((_TEMPLATES / name).read_text(encoding="utf-8"))


def page(title: str, subtitle: str, body: Html, *, scripts: Iterable[str] = ()) -> str:
    """A whole page; ``scripts`` are files among the templates, besides the one that switches the colours."""
    style = _source("style.css")
    script = "\n".join(map(_source, ("theme.js", *scripts)))
    return fill(
        "frame.html",
        title=title,
        subtitle=subtitle,
        body=body,
        version=__version__,
        style=Html(style),
        script=Html(script),
        style_hash=_hash(style),
        script_hash=_hash(script),
    )


def _source(name: str) -> str:
    return (_TEMPLATES / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def write_page(path: Path, text: str) -> None:
    """Writes a page; an older file stays until the new one is complete. Raises SaveError."""
    write_whole(path, lambda stream: stream.write(text.encode()))
