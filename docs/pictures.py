"""The pictures of the tour: runs its commands with the real network, in a temporary folder, and shows what they give.

``PYTHONPATH=.:tests python docs/pictures.py`` in the repository's root, after `make dev`; with the extra [offline], and
Chromium for the pages.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import chromium
import numpy as np
from doc_blocks import ROOT, blocks, commands
from PIL import Image

from inreach_fast.cli.main import main

TARGET = ROOT / "docs" / "pictures"
QUALITY = 80


def run_tour() -> None:
    """The blocks of the tour, in the working directory; the demo, whose picture is docs/inspection.jpg, is left out."""
    os.environ["INREACH_BACKBONE_RUNTIME"] = "torch"  # the tour installs no other
    names: dict[str, object] = {}
    for block in blocks("docs/tour.md"):
        if block.language == "python":
            exec(compile(block.text, str(block), "exec"), names)
        elif block.language == "sh":
            for words in commands(block):
                if words[0] == "inreach" and words[1] != "demo":
                    print("$", *words, flush=True)
                    assert main(words[1:]) == 0, words


def save(name: str, picture: Image.Image, width: int) -> None:
    """A JPEG of at most ``width`` pixels."""
    if picture.width > width:
        picture = picture.resize((width, round(picture.height * width / picture.width)), Image.Resampling.LANCZOS)
    TARGET.mkdir(exist_ok=True)
    picture.convert("RGB").save(TARGET / name, quality=QUALITY, optimize=True)


def contact_sheet(folder: Path, columns: int, side: int = 112, gap: int = 4) -> Image.Image:
    """The images of a folder, in the order of their names."""
    paths = sorted(folder.glob("*.png"))
    rows = -(-len(paths) // columns)
    sheet = Image.new("RGB", (columns * (side + gap) - gap, rows * (side + gap) - gap), "white")
    for number, path in enumerate(paths):
        place = (number % columns * (side + gap), number // columns * (side + gap))
        sheet.paste(Image.open(path).resize((side, side), Image.Resampling.LANCZOS), place)
    return sheet


def below_each_other(paths: list[Path]) -> Image.Image:
    """Pictures of one width, one below the other."""
    return Image.fromarray(np.concatenate([np.asarray(Image.open(path).convert("RGB")) for path in paths]))


def screenshots(pages: dict[str, tuple[Path, int]]) -> None:
    """The upper part of pages, so many pixels high."""
    with tempfile.TemporaryDirectory() as folder, chromium.browser(Path(folder)) as browser:
        for name, (page, height) in pages.items():
            browser.open(page, width=1100)
            browser.screenshot(Path(folder) / "page.png")
            picture = Image.open(Path(folder) / "page.png")
            save(name, picture.crop((0, 0, picture.width, min(height, picture.height))), 1100)


def draw() -> None:
    with tempfile.TemporaryDirectory() as folder:
        before = os.getcwd()
        os.chdir(folder)
        try:
            run_tour()
            save("photos.jpg", contact_sheet(Path("photos"), columns=8), 924)
            overlays = sorted(Path("out").rglob("*.png"))
            save("overlays.jpg", below_each_other([p for p in overlays if p.stem[:2] in ("03", "04")]), 720)
            pages = {"audit.jpg": (Path("audit.html"), 1500), "explanation.jpg": (Path("why/04.html"), 1330)}
            if chromium.PROGRAM is not None:
                screenshots(pages)
        finally:
            os.chdir(before)


if __name__ == "__main__":
    draw()
