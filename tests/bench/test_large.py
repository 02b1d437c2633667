"""The long sections of the bench at tiny sizes: varied pictures, children, scaling, the large fit, the plot."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))  # last: an installed package must not be hidden by the source tree

pytest.importorskip("threadpoolctl")

from bench import (  # noqa: E402
    __main__,
    exact,
    fit_large,
    patchcore,
    patchcore_child,
    peers,
    plot_scaling,
    scale,
    scale_child,
    varied_images,
    workload,
)
from bench.children import Child  # noqa: E402
from bench.search import RANDOM  # noqa: E402
from bench.timing import OURS  # noqa: E402
from bench.workload import random_rows  # noqa: E402

linux = pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="needs Linux' /proc")
needs_faiss = pytest.mark.skipif(importlib.util.find_spec("faiss") is None, reason="needs faiss (extra 'bench')")


@pytest.fixture
def no_data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(workload.DATA_VARIABLE, str(tmp_path / "nothing"))


@pytest.mark.usefixtures("no_data")
def test_varied_picture_depends_on_seed_and_number_alone() -> None:
    few, many = varied_images.VariedImages(8, side=32), varied_images.VariedImages(100, side=32)
    assert (len(few), few.sources) == (8, 64)
    assert all(np.array_equal(few[i], many[i]) for i in (7, 0, 3))
    assert few[0].shape == (32, 32, 3)
    assert few[0].dtype == np.uint8
    assert len({many[i].tobytes() for i in range(100)}) == 100
    assert not np.array_equal(few[0], varied_images.VariedImages(8, seed=1, side=32)[0])
    with pytest.raises(IndexError):
        few[8]


@pytest.mark.usefixtures("no_data")
def test_originals_come_once_each() -> None:
    pictures = varied_images.VariedImages(400, originals=0.5, side=256)
    assert len(pictures._original) == 64
    assert sorted(pictures._original.values()) == list(range(64))
    first = min(pictures._original)
    assert np.array_equal(pictures[first], pictures._textures[pictures._original[first]])
    assert varied_images.VariedImages(20, originals=0.5)._original == {
        i: n for i, n in pictures._original.items() if i < 20
    }


def test_cuts_lie_inside_the_picture() -> None:
    picture = np.zeros((40, 60, 3), dtype=np.uint8)
    picture[..., 0] = 100
    for seed in range(50):
        out = varied_images.vary(picture, np.random.default_rng(seed), 16)
        assert out.shape == (16, 16, 3)
        assert 79 <= out[..., 0].min() <= out[..., 0].max() <= 121


def test_child_that_fails_is_named() -> None:
    with pytest.raises(RuntimeError, match=r"bench\.no_such_module x ended with exit code 1"):
        Child("bench.no_such_module", ["x"])


@linux
@needs_faiss
def test_scale_parties_agree_with_brute_force(tmp_path: Path) -> None:
    # Low rank, so that there is something to be bounded, and an index.
    random = np.random.default_rng(0)
    rows = (random.standard_normal((1500, 6)) @ random.standard_normal((6, 24))).astype(np.float32)
    rows += random_rows(1500, 24, seed=1) * np.float32(0.1)
    queries = rows[::20] + np.float32(0.05)
    file = tmp_path / "rows.f32"
    rows.tofile(file)
    case, reply = scale._at_size("features", file, queries, 1200, tmp_path, quick=True)
    assert case["checks"]["equal to float64 brute force, index and bits"] == "16 of 16"
    assert set(case["seconds"]) == {OURS, *scale._peers("features", 1200)}
    assert len(case["seconds"][OURS]["values"]) == 2
    assert reply["modules"] == []  # what is measured loads neither torch nor faiss
    assert 0 < reply["anonymous"] <= reply["resident"] <= reply["peak"]
    assert not (tmp_path / "scale").exists()
    json.dumps(case)
    noise, _ = scale._at_size(RANDOM, file, queries, 1200, tmp_path, quick=True)
    assert set(noise["seconds"]) == {OURS, peers.FAISS}
    memory = scale._memory_case("features", 1200, 24, reply)
    assert memory["goals"] == []
    assert scale._memory_case("features", scale.TO, 24, reply)["goals"][0]["met"]


def test_index_is_mapped_as_it_was_built(tmp_path: Path) -> None:
    from inreach_fast import kernels

    random = np.random.default_rng(0)
    rows = (random.standard_normal((2000, 5)) @ random.standard_normal((5, 48))).astype(np.float32)
    scale_child.build(rows, tmp_path / "index", 1 << 26)
    arrays = scale_child.mapped_index(tmp_path / "index")
    expected = kernels.Bank(rows).index_arrays()
    assert set(arrays) == set(expected)
    for name, array in expected.items():
        assert np.array_equal(arrays[name], array)
    found = kernels.nearest(rows[:30] + np.float32(0.01), kernels.Bank(rows, index_arrays=arrays))
    index, distance = exact.nearest(rows[:30] + np.float32(0.01), rows)
    assert found.index.tolist() == index.tolist()
    assert found.sq_distance.tolist() == distance.tolist()


def test_growth_and_goals(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {30_000: 1.0, 3_000_000: 30.0}

    def at_size(data: str, rows: Path, queries: Any, size: int, scratch: Path, quick: bool) -> Any:
        reply = {"peak": 3e9, "resident": 1e9, "anonymous": 4e8, "files": 6e8, "modules": [], "build": None}
        return {"seconds": {OURS: {"median": seconds[size]}}, "goals": []}, reply

    monkeypatch.setattr(scale, "_at_size", at_size)
    queries = np.zeros((1, 8), dtype=np.float32)
    *_, growth, memory = scale._of_one_kind("x", Path(), queries, (30_000, 3_000_000), Path(), False)
    assert growth["values"] == {OURS: 30.0}
    assert growth["goals"][0]["goal"] == f"{OURS} under 25 x"
    assert not growth["goals"][0]["met"]
    assert not memory["goals"][0]["met"]
    assert memory["values"]["of which mapped files (RssFile)"] == 0.6


def test_plot_is_made_of_seconds_a_query(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")

    def case(data: str, rows: int, **seconds: float) -> dict[str, Any]:
        named = {OURS: seconds["ours"], peers.FAISS: seconds["flat"]}
        return {
            "kind": "time", "data": data, "rows": rows, "queries": 10,
            "seconds": {who: {"median": s} for who, s in named.items()},
        }  # fmt: skip

    cases = [case("features", 1000, ours=1.0, flat=2.0), case("features", 9000, ours=2.0, flat=18.0)]
    cases += [case(RANDOM, 1000, ours=2.0, flat=2.0), {"kind": "value", "data": "features"}]
    lines = plot_scaling.series(cases)
    assert lines[OURS, False] == {1000: 0.1, 9000: 0.2}
    assert lines[peers.FAISS, True] == {1000: 0.2}
    result = {"machine": {"cpu": "some", "inreach_fast": {}}, "sections": {"scale": {"cases": cases}}}
    plot_scaling.plot(result, tmp_path / "sub" / "plot.png")
    assert (tmp_path / "sub" / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_large_fit_is_held_against_its_limit_at_full_size_only() -> None:
    reply = {
        "images": fit_large.IMAGES, "patches": 10, "nominal": 4, "memory_limit": "1GB", "data": "x", "before": 10**9,
        "peak": 31 * 10**8, "fit": {"anonymous_before": 1, "anonymous_peak": 2, "seconds": 5.0},
        "plan": {
            "memory": {"peak": 4 * 10**9}, "disk": {"peak": 8, "model": 9}, "total_seconds": 6.0, "planned_in": 1.0,
            "measured_images": 3,
        },
        "joined": 5, "disk_fitted": 6, "disk_peak": 7, "model_bytes": 6, "stages": {"describe": 4.0},
        "save_seconds": 1.0,
    }  # fmt: skip
    memory, disk, seconds = fit_large.cases(reply)
    assert memory["goals"][0]["figure"] == "3.1 GB"
    assert not memory["goals"][0]["met"]
    assert memory["values"]["planned"] == 4.0
    assert list(seconds["values"]) == ["fit", "planned", "of which describe", "save"]
    assert disk["goals"] == []
    assert fit_large.cases({**reply, "images": 24})[0]["goals"] == []


@pytest.mark.parametrize("order", ["RGB", "BGR"])
def test_peer_sees_the_input_that_ours_sees(order: str) -> None:
    from inreach_fast.backbones import Normalisation
    from inreach_fast.backbones.backbone import prepare_input

    images = np.random.default_rng(0).integers(0, 256, (2, 24, 24, 3)).astype(np.uint8)
    norm = Normalisation((103.0, 115.0, 123.0), (1.0, 2.0, 3.0), scale=1.0, channel_order=order)
    settings = {"image_size": 24, "mean": norm.mean, "std": norm.std, "scale": 1.0, "channel_order": order}
    theirs = patchcore_child._preparation(settings)(images)
    np.testing.assert_allclose(theirs.numpy(), prepare_input(images, norm).numpy(), rtol=1e-6, atol=1e-4)


def test_patchcore_asks_for_its_environment(no_data: None) -> None:
    with pytest.raises(RuntimeError, match="--anomalib-python"):
        patchcore.run(workload.Workload(), None)


def test_a_part_of_the_sections_does_not_overwrite_the_whole() -> None:
    def name(*arguments: str) -> str:
        return __main__._name(__main__._parser().parse_args(arguments))

    assert name() == "full"
    assert name("--quick") == "quick"
    assert name("--only", "scale") == "scale"
    assert name("--only", "search,whole", "--quick") == "search-whole-quick"
