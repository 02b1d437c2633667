"""The service's page in headless Chromium: an image is chosen, its verdict shown; nothing is asked for elsewhere.

Set INREACH_SCREENSHOTS to a folder to look at it.
"""

from __future__ import annotations

import os
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from small_fits import estimator, pictures

pytest.importorskip("fastapi", reason="FastAPI is not installed (extra [serve])")
pytest.importorskip("chromium", reason="no driver of Chromium")

import chromium

from inreach_fast import Inspector
from inreach_fast.cli.commands.serve import _overlay
from inreach_fast.serving import server
from inreach_fast.serving.app import ServiceLimits
from inreach_fast.serving.signals import Stop

pytestmark = pytest.mark.skipif(chromium.PROGRAM is None, reason="needs Chromium")


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    bound, stop = server.listen("127.0.0.1", 0), Stop()
    inspector = Inspector(estimator().fit(pictures()), warm=False)
    address = server.url_of(bound)
    options: dict[str, Any] = {"stop": stop, "limits": ServiceLimits(), "draw": _overlay}
    thread = threading.Thread(target=server.run_service, args=(inspector, bound), kwargs=options)
    thread.start()
    while thread.is_alive() and not is_ready(address):
        time.sleep(0.01)
    yield address
    stop.asked = True
    thread.join()


def is_ready(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}health") as answer:
            return bool(answer.status == 200)
    except OSError:  # not listening yet, or 503
        return False


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with chromium.browser(tmp_path_factory.mktemp("chromium")) as found:
        yield found


def open_page(browser: Any, address: str, *, dark: bool = False, width: int = 800) -> None:
    browser.open(Path(os.devnull), dark=dark, width=width)  # sets colours and size
    browser.events.clear()
    browser.call("Page.navigate", url=address)
    while browser.evaluate("document.readyState") != "complete":
        time.sleep(0.01)


def choose(browser: Any, file: Path) -> str:
    """Chooses a file, and returns the verdict when there is one."""
    root = browser.call("DOM.getDocument")["root"]["nodeId"]
    node = browser.call("DOM.querySelector", nodeId=root, selector="#file")["nodeId"]
    browser.call("DOM.setFileInputFiles", nodeId=node, files=[str(file)])
    while (words := browser.evaluate("verdict.textContent")) in ("", "Inspecting …"):
        time.sleep(0.01)
    return str(words)


@pytest.mark.parametrize("dark", [False, True])
def test_an_image_is_chosen_and_its_verdict_shown(browser: Any, address: str, dark: bool, tmp_path: Path) -> None:
    shown = pictures(1, size=(300, 400), seed=3)[0]
    Image.fromarray(shown).save(tmp_path / "<b>part.png")
    open_page(browser, address, dark=dark)
    assert browser.evaluate("getComputedStyle(document.body).backgroundColor") != (
        "rgb(255, 255, 255)" if dark else "rgb(22, 24, 28)"
    )
    assert choose(browser, tmp_path / "<b>part.png") in ("Nominal", "Anomalous")
    assert browser.evaluate("details.textContent").startswith("<b>part.png: score ")
    assert browser.evaluate("map.decode().then(() => [map.naturalWidth, map.naturalHeight, map.hidden])") == [
        400,
        300,
        False,
    ]
    assert browser.evaluate("map.alt").startswith("Heat map over <b>part.png")
    assert browser.complaints == []
    assert all(request.startswith(address) for request in browser.requests)
    assert browser.faint == []
    if folder := os.environ.get("INREACH_SCREENSHOTS"):
        browser.screenshot(Path(folder) / f"service-{'dark' if dark else 'light'}.png")


def test_a_file_that_is_no_image_is_an_error_in_words(browser: Any, address: str, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("words")
    open_page(browser, address, width=360)
    assert choose(browser, tmp_path / "notes.txt") == "Not inspected"
    assert "text/plain" in browser.evaluate("details.textContent")
    assert browser.evaluate("map.hidden")
    assert browser.evaluate("document.documentElement.scrollWidth") <= 360
    assert browser.faint == []
    if folder := os.environ.get("INREACH_SCREENSHOTS"):
        browser.screenshot(Path(folder) / "service-error-narrow.png")


def test_the_keyboard_reaches_the_choice_of_a_file(browser: Any, address: str) -> None:
    open_page(browser, address)
    browser.press("Tab")
    assert browser.evaluate("document.activeElement.id") == "file"
    outline = browser.evaluate("getComputedStyle(drop).outlineStyle")
    assert outline != "none"
