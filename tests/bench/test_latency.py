"""The bench of latency at a tiny size: its cases, its contestants, its goals."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))  # last: an installed package must not be hidden by the source tree

pytest.importorskip("threadpoolctl")

from small_networks import normed_backbone  # noqa: E402

from bench import latency, latency_anomalib  # noqa: E402


class _Work:
    image_size, features = 32, "small images"

    def __init__(self) -> None:
        self.backbone = normed_backbone()

    def training_images(self, count: int) -> list[np.ndarray]:
        random = np.random.default_rng(count)
        return list(random.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8))

    test_images = training_images


def test_latency(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inreach_fast.backbones.is_installed", lambda name: name.startswith("torch"))
    seen: list[str] = []
    monkeypatch.setattr(latency_anomalib, "contestants", lambda *_: {"peer": seen.append})
    work: Any = _Work()
    parts, *cases = latency.run(work, quick=True, images=6, frames=4)
    assert parts["goals"][0]["goal"] == "whole under 1.15 networks"
    assert [case["name"] for case in cases] == [
        "predict on a quiet machine, in a loop",
        "beside anomalib: predict on a quiet machine, in a loop",
        "predict on a quiet machine, a frame every 30 ms",
        "predict beside a busy process, in a loop",
        "beside anomalib: predict beside a busy process, in a loop",
        "predict beside a busy process, a frame every 30 ms",
    ]
    ours = ["torch", "torch, 1 thread", "torch, threads auto"]
    for case in cases:
        if case["name"].startswith("beside"):
            assert list(case["seconds"]) == [ours[0], ours[2], "peer"]
        else:
            assert set(case["seconds"]) == {*ours, "torch-unfolded", "torch-unfolded, 1 thread"}
        paced = "every" in case["name"]
        assert any("loops" in goal["goal"] for goal in case["goals"]) == paced
    assert len(seen) == 2 * 4
    assert all(path.endswith(".png") for path in seen)


def test_without_anomalib_there_are_no_peers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(latency_anomalib, "find_spec", lambda _: None)
    work: Any = _Work()
    assert latency_anomalib.contestants(work, tmp_path, 2) == {}
