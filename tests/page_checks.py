"""What must hold of every page: well formed, self-contained, and usable without eyes or a mouse."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from itertools import pairwise

VOID = frozenset({"meta", "link", "img", "input", "br", "hr"})
URLS = frozenset({"src", "href", "srcset", "action", "formaction", "data", "poster", "background", "xlink:href"})


@dataclass
class Element:
    tag: str
    attributes: dict[str, str]
    text: str = ""


@dataclass
class Page:
    """A parsed page: its elements in order, each with the text directly in it and in its children."""

    source: str
    elements: list[Element] = field(default_factory=list)

    def all(self, tag: str, **attributes: str) -> list[Element]:
        return [
            e for e in self.elements if e.tag == tag and all(e.attributes.get(k) == v for k, v in attributes.items())
        ]

    def one(self, tag: str, **attributes: str) -> Element:
        (found,) = self.all(tag, **attributes)
        return found

    def by_id(self, name: str) -> Element:
        (found,) = [e for e in self.elements if e.attributes.get("id") == name]
        return found


class _Parser(HTMLParser):
    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.page, self.open = Page(source), list[Element]()
        self.feed(source)
        self.close()
        assert not self.open, f"not closed: {[e.tag for e in self.open]}"

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attributes]
        assert len(set(names)) == len(names), f"an attribute twice in {tag}: {names}"
        element = Element(tag, {name: value or "" for name, value in attributes})
        self.page.elements.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open[-1].tag == tag, f"</{tag}> closes {self.open[-1].tag}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        for element in self.open:
            element.text += data


def checked(source: str) -> Page:
    """The page, parsed; fails where a rule is broken."""
    assert source.startswith("<!doctype html>\n")
    page = _Parser(source).page
    _loads_nothing(page)
    _runs_its_own_script_only(page)
    _is_accessible(page)
    return page


def _loads_nothing(page: Page) -> None:
    for element in page.elements:
        for name, value in element.attributes.items():
            if name in URLS:
                assert value.startswith(("data:image/", "#")) or value == "data:,", f"{element.tag} {name}={value[:60]}"
        assert element.tag not in ("iframe", "object", "embed", "base", "video", "audio", "form")
    style = page.one("style").text
    assert "url(" not in style
    assert "@import" not in style


def _runs_its_own_script_only(page: Page) -> None:
    style, script = page.one("style").text, page.one("script").text
    policy = page.one("meta", **{"http-equiv": "Content-Security-Policy"}).attributes["content"]
    assert policy.startswith("default-src 'none'; img-src data:;")
    for kind, text in (("style", style), ("script", script)):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    for element in page.elements:
        assert not [name for name in element.attributes if name.startswith("on") or name == "style"], element


def _is_accessible(page: Page) -> None:
    assert page.one("html").attributes["lang"] == "en"
    assert page.all("title")[0].text.strip()
    ids = [e.attributes["id"] for e in page.elements if "id" in e.attributes]
    assert len(set(ids)) == len(ids)
    levels = [int(e.tag[1]) for e in page.elements if re.fullmatch("h[1-6]", e.tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels)), levels
    for element in page.elements:
        attributes = element.attributes
        if element.tag == "img":
            assert "alt" in attributes
            assert int(attributes.get("width", 1)) > 0
        for name in ("aria-labelledby", "for"):
            assert set(attributes.get(name, "").split()) <= set(ids), attributes
        if attributes.get("href", "").startswith("#"):
            assert attributes["href"][1:] in ids, attributes
        if element.tag == "input" and attributes["type"] == "checkbox":
            assert attributes["aria-label"]
        if element.tag == "svg":
            assert attributes["role"] == "img"
            assert attributes["aria-labelledby"]
        if element.tag == "th":
            assert attributes["scope"] in ("col", "row")
    assert page.one("a", **{"class": "skip"}).attributes["href"] == "#main"
    assert page.by_id("main").tag == "main"
    assert len(page.all("caption")) == len(page.all("table"))
