"""A tiny data set in MVTec's layout, written to a temporary folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from inreach_fast.evaluation.supplement import corruption_list


def write_class(
    root: Path, name: str = "bottle", *, n_train: int = 4, size: int = 16, defect: slice = slice(4, 8)
) -> Path:
    """Good training images, and as test images those of the class's corruption list and two more.

    Defective images carry a bright square on rows and columns ``defect``, which is also their mask.
    """
    rng = np.random.default_rng(0)
    base = root / name
    names = [*corruption_list(name), "good/100.png", "contamination/100.png"]

    def save(path: Path, pixels: np.ndarray) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)

    for i in range(n_train):
        save(base / "train" / "good" / f"{i:03d}.png", rng.integers(0, 60, (size, size, 3), dtype=np.uint8))
    for entry in names:
        kind, file = entry.split("/")
        pixels = rng.integers(0, 60, (size, size, 3), dtype=np.uint8)
        if kind != "good":
            pixels[defect, defect] = 200
            mask = np.zeros((size, size), dtype=np.uint8)
            mask[defect, defect] = 255
            save(base / "ground_truth" / kind / file.replace(".png", "_mask.png"), mask)
        save(base / "test" / kind / file, pixels)
    return base
