"""What the tests of the command line share: a small, fast set of options, small images, a run's result."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

# A seeded, untrained network at a small size: seconds, and the same on every machine.
FAST = ("--preset", "channels", "--backbone", "efficientnet_lite2", "--weights", "random", "--depth", "3",
        "--image-size", "48", "--dim", "32", "--min-channel-length", "1", "--assoc-depth", "3")  # fmt: skip
# The same with the default preset, which keeps every patch.
DEFAULT = (*FAST, "--preset", "default", "--pca-dim", "8")


class Result:
    """What a run of the command gave."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def error(self) -> str:
        """The one sentence of a failed run; anything else on stderr fails the test."""
        lines = [line for line in self.err.splitlines() if line.startswith("inreach: error: ")]
        assert len(lines) == 1, self.err
        assert "Traceback" not in self.err
        return lines[0]


Run = Callable[..., Result]


def picture(seed: int, size: tuple[int, int] = (48, 48), defect: bool = False) -> np.ndarray:
    """A striped surface with a little noise, uint8 (H,W,3); a defect is a bright block."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[: size[0], : size[1]]
    pixels = 100 + 50 * np.sin(columns / 3.0) + 20 * np.cos(rows / 5.0) + random.normal(0, 4, size)
    if defect:
        pixels[size[0] // 3 : size[0] // 2, size[1] // 3 : size[1] // 2] = 250
    return np.repeat(np.clip(pixels, 0, 255).astype(np.uint8)[:, :, None], 3, axis=2)


def save(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path
