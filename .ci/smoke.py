"""A first look at an installed package, run from an empty folder: is it whole, and does it answer rightly?

Needs NumPy and nothing else; with torch installed, a whole model is fitted, saved, loaded and asked as well.
"""

from __future__ import annotations

import importlib.util
import sys
import tempfile
from pathlib import Path

import numpy as np

import inreach_fast
from inreach_fast import kernels


def search() -> None:
    """The nearest rows against float64 brute force."""
    rng = np.random.default_rng(0)
    bank, queries = (rng.standard_normal((n, 48)).astype(np.float32) for n in (3000, 200))
    exact = ((queries[:, None].astype(np.float64) - bank[None]) ** 2).sum(axis=2)
    for name in kernels.available_backends():
        found = kernels.nearest(queries, bank, backend=name)
        assert (found.index == exact.argmin(axis=1)).all(), name
        assert (found.sq_distance == exact.min(axis=1).astype(np.float32)).all(), name


def model() -> None:
    """A model of descriptors: fitted, saved, loaded, and the same answers."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((16, 24))
    x = (centres + 0.1 * rng.standard_normal((12, 16, 24))).astype(np.float32)
    fitted = inreach_fast.InReaCh(assoc_depth=4, image_size=16, spread_filter=False).fit_descriptors(x, grid=(4, 4))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.inreach"
        fitted.save(path)
        loaded = inreach_fast.InReaCh.load(path)
        before, after = fitted.score_descriptors(x[0]), loaded.score_descriptors(x[0])
    assert before.score == after.score


if __name__ == "__main__":
    wanted = sys.argv[1:] or ["native"]
    assert set(wanted) <= set(kernels.available_backends()), f"{wanted} of {kernels.available_backends()}"
    search()
    done = "search"
    if importlib.util.find_spec("torch"):
        model()
        done += ", model"
    print(f"inreach_fast {inreach_fast.__version__} at {Path(inreach_fast.__file__).parent}: {done} OK")
