"""Every line of the GPU bench, run on the CPU."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_networks import Small

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))  # last: an installed package must not be hidden by the source tree

pytest.importorskip("threadpoolctl")

from bench import __main__ as program  # noqa: E402
from bench import gpu, gpu_model, records  # noqa: E402
from inreach_fast.backbones import Backbone  # noqa: E402

QUERIES, BANK = 40, 600


class _Work:
    image_size, source = 64, "squares"

    def __init__(self) -> None:
        self.backbone = Backbone.from_module(Small(), ["first", "second"])

    def training_images(self, count: int, seed: int = 0) -> list[Any]:
        base = np.random.default_rng(9).integers(0, 255, (64, 64, 3))
        rng = np.random.default_rng(seed)
        # Noise of several sizes: channels whose members all lie equally far from their mean are taken by a filter.
        noise = rng.normal(0, 4, (count, *base.shape)) * rng.choice([0.2, 1, 4], (count, 1, 1, 1))
        return list(np.clip(base + noise, 0, 255).astype(np.uint8))

    def test_images(self, count: int) -> list[Any]:
        return self.training_images(count, seed=1)


@pytest.fixture
def cases(monkeypatch: pytest.MonkeyPatch) -> list[records.Case]:
    monkeypatch.setattr(gpu_model, "_FRAMES", 30)
    return gpu.run(_Work(), quick=True, gpu=gpu.Gpu("cpu"), queries=QUERIES, banks=(BANK,), networks=("auto",))  # type: ignore[arg-type]


def test_every_goal_of_the_issue_has_its_case(cases: list[records.Case]) -> None:
    goals = {(case["name"].split(",")[0].split(" ")[0], goal["who"]) for case in cases for goal in case["goals"]}
    assert goals == {
        ("mutual_nearest", "torch.cdist and min"),
        ("mutual_nearest", "torch bf16 product"),
        ("nearest", "torch.cdist and min"),
        ("nearest", "torch bf16 product"),
        ("predict", "median"),
        ("predict", "ratio"),
        ("predict", "inreach_fast"),
    }
    assert [case["name"].split(" ")[0] for case in cases] == [
        "mutual_nearest", "nearest", "nearest", "fit,", "predict,", "predict,", "predict,",
    ]  # fmt: skip


def test_figures_and_checks(cases: list[records.Case]) -> None:
    for case in cases:
        figures = case.get("values") or {who: s["median"] for who, s in case["seconds"].items()}
        assert all(value > 0 for value in figures.values()), case["name"]
    for case in cases[1:3]:
        assert float(case["checks"]["rows that cdist finds as well"].rstrip("%")) > 90
        assert case["checks"]["counts"]["pairs"] >= QUERIES * BANK // 2
        right, of = case["checks"]["equal to float64 brute force, index and bits"].split(" of ")
        assert right == of
    assert cases[4]["checks"]["way"] == "through the CPU's memory"
    assert cases[4]["checks"]["answers"] == "the CPU's bits"
    fit = cases[3]
    assert fit["checks"]["nominal patches that both chose"] == "100.00%"  # the same processor twice
    assert set(fit["seconds"]) == {"inreach_fast", gpu_model.ON_CPU}
    json.dumps(cases)


def test_the_table_is_written(cases: list[records.Case]) -> None:
    result = {
        "sections": {"gpu": {"cases": cases}},
        "machine": {"cpu": "x", "cpu_family_model": "x", "cores": 1, "memory_gb": 1, "inreach_fast": {},
                    "torch": {"threads": 1, "cpu_capability": "x"}, "thread_pools": []},
        "commit": {}, "versions": {"inreach_fast": "0"}, "date": "today", "seconds": 1.0,
        "settings": {"quick": True, "features": "x", "note": "x"},
    }  # fmt: skip
    text = records.markdown(result)
    for case in cases:
        assert case["name"] in text


def test_without_a_gpu_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    reason = gpu.why_not()
    if reason is None:
        pytest.skip("a GPU is here")
    assert program.main(["--device", "cuda"]) == 0
    assert capsys.readouterr().out.startswith(f"SKIPPED: {reason}")
