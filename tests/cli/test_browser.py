"""Every page in headless Chromium: no error, no request, contrast, keyboard, narrow screens, and lists to download.

Set INREACH_SCREENSHOTS to a folder to look at the pages.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path

import chromium
import numpy as np
import pytest
from chromium import Browser
from cli_cases import DEFAULT, picture, save

from inreach_fast.cli.main import main
from inreach_fast.cli.moving import read_manifest

pytestmark = pytest.mark.skipif(chromium.PROGRAM is None, reason="needs Chromium")

# Not more hostile than a file system allows, and the page's own address stays plain.
NAME = '"><script>document.title="run"</script><img src=x onerror=alert(1)>.png'.replace("/", "\u2215")


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One page of each kind, of images with a hostile name among them."""
    folder = tmp_path_factory.mktemp("pages")
    base = folder / "data" / "part"
    for number in range(6):
        save(base / "train" / "good" / f"{number}.png", picture(number, (96, 120), defect=number == 2))
    (base / "train" / "good" / "2.png").rename(base / "train" / "good" / NAME)
    mask = np.zeros((48, 48), dtype=np.uint8)
    mask[16:24, 16:24] = 255
    for number in range(3):
        save(base / "test" / "good" / f"{number}.png", picture(10 + number))
        save(base / "test" / "block" / f"{number}.png", picture(20 + number, defect=True))
        save(base / "ground_truth" / "block" / f"{number}_mask.png", mask)
    train, model, quiet = str(base / "train" / "good"), str(folder / "m"), "--quiet"
    bad = str(base / "test" / "block" / "0.png")
    audit, evaluation = str(folder / "audit.html"), str(folder / "evaluation.html")
    assert main(["audit", train, *DEFAULT, "--report", audit, "--top", "3", "-o", model, quiet]) == 0
    assert main(["predict", model, bad, "--explain", str(folder), quiet]) == 0
    assert main(["evaluate", str(folder / "data"), *DEFAULT, "--report", evaluation, quiet]) == 0
    return {"audit": Path(audit), "explanation": folder / "0.html", "evaluation": Path(evaluation)}


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium.browser(tmp_path_factory.mktemp("chromium")) as found:
        yield found


@pytest.mark.parametrize("kind", ["audit", "explanation", "evaluation"])
@pytest.mark.parametrize("dark", [False, True])
def test_a_page_opens_without_an_error_or_a_request(
    browser: Browser, pages: dict[str, Path], kind: str, dark: bool
) -> None:
    browser.open(pages[kind], dark=dark)
    assert browser.complaints == []
    assert browser.requests == [pages[kind].resolve().as_uri()]
    assert browser.faint == []
    assert browser.evaluate("document.title") != "run"
    assert browser.evaluate("[...document.images].every((image) => image.naturalWidth > 0)")
    ground = browser.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(255, 255, 255)") != dark
    if folder := os.environ.get("INREACH_SCREENSHOTS"):
        browser.screenshot(Path(folder) / f"{kind}-{'dark' if dark else 'light'}.png")


@pytest.mark.parametrize("kind", ["audit", "explanation", "evaluation"])
def test_a_page_fits_a_narrow_screen(browser: Browser, pages: dict[str, Path], kind: str) -> None:
    browser.open(pages[kind], width=360)
    assert browser.evaluate("document.documentElement.scrollWidth") <= 360
    if folder := os.environ.get("INREACH_SCREENSHOTS"):
        browser.screenshot(Path(folder) / f"{kind}-narrow.png")


def test_colours_can_be_switched(browser: Browser, pages: dict[str, Path]) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    for dark in (False, True):
        browser.open(pages["audit"], dark=dark)
        system = browser.evaluate(ground)
        found = []
        for value in ("light", "dark", ""):
            browser.evaluate(f"document.querySelector('#theme input[value=\"{value}\"]').click()")
            found.append(browser.evaluate(ground))
            assert browser.faint == []
        assert found == ["rgb(255, 255, 255)", "rgb(15, 19, 24)", system]


def test_the_keyboard_reaches_everything_in_order(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["audit"])
    here = "[document.activeElement.tagName, document.activeElement.value ?? document.activeElement.hash ?? '']"
    seen = []
    for _ in range(40):
        browser.press("Tab")
        seen.append(tuple(browser.evaluate(here)))
    assert seen[0] == ("A", "#main")
    order = [("INPUT", ""), ("A", "#summary"), ("A", "#list"), ("BUTTON", "csv"), ("BUTTON", "none"), ("DIV", "")]
    places = [seen.index(next(s for s in seen if s[0] == tag and (s[1] == value or not value))) for tag, value in order]
    assert places == sorted(places)
    browser.evaluate("document.querySelector('#images input').focus()")
    before = browser.evaluate("document.querySelector('#images input').checked")
    browser.press(" ")
    assert browser.evaluate("document.querySelector('#images input').checked") != before
    assert "images selected" in browser.evaluate("document.getElementById('selected').textContent")


def test_the_list_is_downloaded_and_read_again(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["audit"])
    script = "document.querySelector('#actions button[value={}]').click()"
    browser.evaluate(script.format("none"))
    assert browser.evaluate("document.getElementById('selected').textContent") == "0 of 6 images selected"
    browser.evaluate("document.querySelectorAll('#images input').forEach((box, i) => { if (i % 2 == 0) box.click() })")
    wanted = browser.evaluate("[...document.querySelectorAll('#images input:checked')].map((box) => box.value)")
    assert len(wanted) == 3
    assert NAME in wanted
    browser.evaluate(script.format("csv"))
    browser.evaluate(script.format("json"))
    text = browser.downloaded("manifest.csv")
    assert [row["file"] for row in csv.DictReader(io.StringIO(text))] == wanted
    assert read_manifest(browser.downloads / "manifest.csv") == wanted
    content = json.loads(browser.downloaded("manifest.json"))
    assert [entry["file"] for entry in content["files"]] == wanted
    assert read_manifest(browser.downloads / "manifest.json") == wanted
    assert browser.complaints == []
    browser.evaluate(script.format("above"))
    assert browser.evaluate(
        "[...document.querySelectorAll('#images input')].every((b) => b.checked == ('above' in b.dataset))"
    )
