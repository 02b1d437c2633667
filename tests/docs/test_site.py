"""The built site: strict, and no page loads anything from elsewhere. With Chromium the pages are opened as well."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import chromium
import pytest
from chromium import Browser
from doc_blocks import ROOT

pytest.importorskip("mkdocs", reason="the site needs the extra [docs]")
pytest.importorskip("material", reason="the site needs the extra [docs]")
pytest.importorskip("mkdocstrings", reason="the site needs the extra [docs]")

OPENED = ("index.html", "tour.html", "api.html", "cli.html", "algorithm.html", "notebook.html", "guide.html")
LOADING = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src", "object": "data"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built from the repository; warnings are errors."""
    folder = tmp_path_factory.mktemp("site")
    # Not with the repository's root in front: there lies the source tree, which may hold no extension.
    start = "import sys; del sys.path[0]; from mkdocs.__main__ import cli; cli()"
    command = [sys.executable, "-c", start, "build", "--strict", "--quiet"]
    paths = os.pathsep.join(filter(None, sys.path))
    environment = {**os.environ, "PYTHONPATH": paths, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(
        [*command, "--site-dir", str(folder)], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return folder


class _Loaded(HTMLParser):
    """The addresses that a page loads, and its pictures without a text."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.bare: list[str] = []
        self.feed(source)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        if tag == "img" and not given.get("alt"):
            self.bare.append(str(given))
        address = given.get(LOADING.get(tag, ""))
        if address and given.get("rel") not in ("canonical", "next", "prev"):
            self.addresses.append(address)


def test_no_page_loads_anything_from_elsewhere(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 25
    for page in pages:
        if page.name == "404.html":  # its addresses are those of a server's root
            continue
        loaded = _Loaded(page.read_text(encoding="utf-8"))
        assert not loaded.bare, f"{page.name}: pictures without a text"
        for address in loaded.addresses:
            if not address.startswith("data:"):
                assert not re.match(r"[a-z]+:|//", address), f"{page.name} loads {address}"
                assert (page.parent / address.partition("?")[0]).resolve().exists(), f"{page.name}: {address}"
    for style in site.rglob("*.css"):
        assert not re.search(r"url\(['\"]?(https?:|//)|@import", style.read_text(encoding="utf-8")), style.name


def test_the_reference_has_what_is_public(site: Path) -> None:
    import inreach_fast
    from inreach_fast import errors, kernels
    from inreach_fast.cli.main import build_parser

    page = (site / "api.html").read_text(encoding="utf-8")
    names = set(re.findall(r'id="inreach_fast\.(?:\w+\.)*(\w+)"', page))
    own = {n for n, value in vars(errors).items() if isinstance(value, type) and value.__module__ == errors.__name__}
    wanted = {*inreach_fast.__all__, *kernels.__all__, *own, "InReaChDetector", "InReaChModule"}
    assert not wanted - {"__version__", "kernels"} - names
    commands = (site / "cli.html").read_text(encoding="utf-8")
    (choices,) = (action.choices for action in build_parser()._actions if action.dest == "command")
    assert choices is not None
    for name in choices:
        assert f'id="inreach-{name}"' in commands


@pytest.fixture(scope="module")
def server(site: Path) -> Iterator[str]:
    """The address of the site, served to this machine."""

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(site))) as http:
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{http.server_address[1]}/"
        http.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if chromium.PROGRAM is None:
        pytest.skip("needs Chromium")
    with chromium.browser(tmp_path_factory.mktemp("chromium")) as found:
        yield found


def open_in(browser: Browser, address: str, dark: bool) -> None:
    """Opens a page in its light or dark colours.

    Scripts that a page starts after it was loaded keep its colours for the next one: it is opened until they are right.
    """
    wanted = "slate" if dark else "default"
    for _ in range(10):
        browser.open(address, dark=dark)
        until = time.monotonic() + 1.0
        while time.monotonic() < until:
            if browser.evaluate("document.body.getAttribute('data-md-color-scheme')") == wanted:
                return
            time.sleep(0.02)
        browser.evaluate("localStorage.clear()")
    raise AssertionError(f"{address} is not shown in its colours {wanted!r}")


@pytest.mark.parametrize("page", OPENED)
@pytest.mark.parametrize("dark", [False, True])
def test_a_page_opens_without_an_error_or_a_request(browser: Browser, server: str, page: str, dark: bool) -> None:
    open_in(browser, server + page, dark)
    assert [address for address in browser.requests if not address.startswith(server)] == []
    assert browser.complaints == []
    assert browser.evaluate("[...document.images].every((image) => image.naturalWidth > 0)")
    assert [text for text in browser.faint if "Initializing search" not in text] == []
    if folder := os.environ.get("INREACH_SCREENSHOTS"):
        browser.screenshot(Path(folder) / f"site-{page.removesuffix('.html')}-{'dark' if dark else 'light'}.png")


def test_a_page_fits_a_narrow_screen(browser: Browser, server: str) -> None:
    for page in OPENED:
        browser.open(server + page, width=360)
        assert browser.evaluate("document.documentElement.scrollWidth") <= 360, page
