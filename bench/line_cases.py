"""Shared by bench/line_watch.py and bench/line_serve.py: a small model, image files, and what their verdicts are."""

from __future__ import annotations

import io
import os
import struct
import sys
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from inreach_fast import InReaCh

from . import ROOT

SIZE = (48, 40)
PICTURES = 40


class Case(NamedTuple):
    """An image file and its score by `InReaCh.predict`; None if it is none."""

    content: bytes
    suffix: str
    score: float | None


def saved_model(folder: Path) -> Path:
    """A model of ten pictures, by the network of two convolutions."""
    pictures = [_picture(seed) for seed in range(10)]
    network = f"{ROOT / 'bench' / 'backbones' / 'tiny.py'}:build"
    model = InReaCh("channels", backbone=network, image_size=32, dim=24, assoc_depth=2, smoothing_sigma=1.0)
    path = folder / "tiny.inreach"
    model.fit(pictures).save(path)
    return path


def good_cases(model: InReaCh, count: int = PICTURES) -> list[Case]:
    """PNG and JPEG files of different pictures, some of them with a defect."""
    cases = []
    for number in range(count):
        kind, file = ("png", "jpeg")[number % 2], io.BytesIO()
        Image.fromarray(_picture(100 + number, defect=number % 5 == 0)).save(file, format=kind)
        content = file.getvalue()
        cases.append(Case(content, f".{kind}", float(model.predict(content).score)))
    return cases


def truncated(case: Case) -> Case:
    """The first half of a file."""
    return Case(case.content[: len(case.content) // 2], case.suffix, None)


def png_of_zeros(width: int, height: int) -> bytes:
    """A whole, valid grey PNG of 1 bit: a square of 20,000 pixels a side takes 60 kB."""
    row = b"\0" * (1 + (width + 7) // 8)
    packer, packed = zlib.compressobj(9), b""
    for _ in range(height):
        packed += packer.compress(row)
    packed += packer.flush()

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def command(*arguments: object) -> list[str]:
    """The command line of `inreach` in this interpreter."""
    return [sys.executable, "-m", "inreach_fast.cli", *map(str, arguments)]


def environment() -> dict[str, str]:
    """An environment in which a child finds the package that is imported here."""
    import inreach_fast

    folders = [str(Path(inreach_fast.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, folders)), "PYTHONUNBUFFERED": "1"}


def _picture(seed: int, defect: bool = False) -> Any:
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    pixels = 128 + 50 * np.sin(x / 5) + 40 * np.cos(y / 7)
    pixels = pixels[:, :, None] + generator.normal(0, 6, (*SIZE, 3))
    if defect:
        pixels[10:22, 12:24] = 250
    return np.clip(pixels, 0, 255).astype(np.uint8)
