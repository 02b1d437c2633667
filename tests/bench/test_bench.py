"""The bench at tiny sizes: its schema, its ratios, and the baseline."""

from __future__ import annotations

import importlib.util
import json
import mmap
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))  # last: an installed package must not be hidden by the source tree

pytest.importorskip("threadpoolctl")

from small_networks import normed_backbone  # noqa: E402

from bench import (  # noqa: E402
    approximate,
    association,
    at_isa,
    baseline,
    brute,
    environment,
    exact,
    network,
    panorama,
    peers,
    predict_parts,
    records,
    resident,
    search,
    timing,
    tuned,
    whole,
)
from bench.workload import random_rows  # noqa: E402

faiss_missing = importlib.util.find_spec("faiss") is None
needs_faiss = pytest.mark.skipif(faiss_missing, reason="faiss is not installed (extra 'bench')")


def test_the_network_by_each_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "_REST", 0.0)
    monkeypatch.setattr(network, "is_installed", lambda name: name == "torch")
    cases = network.run(32, quick=True, threads=2, network=normed_backbone())
    assert [case["name"] for case in cases] == ["normed by torch, 1 thread", "normed by torch, 2 threads"]
    for case in cases:
        assert list(case["seconds"]) == [network.EAGER, network.DIRECT, "torch"]
        assert [goal["goal"] for goal in case["goals"]] == [f"1.35x {network.EAGER}"]
        assert 0 < float(case["checks"]["greatest feature difference"]) < 1e-5


@pytest.fixture(scope="module")
def random() -> np.random.Generator:
    return np.random.default_rng(5)


def test_ratios_are_taken_round_by_round() -> None:
    found = timing.ratios({"peer": [2.0, 9.0, 4.0], "us": [1.0, 1.0, 4.0]}, "us")
    assert list(found) == ["peer"]
    assert found["peer"] == {"median": 2.0, "min": 1.0, "max": 9.0, "values": [2.0, 9.0, 1.0]}


def test_race_interleaves_and_warms_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "_REST", 0.0)
    order: list[str] = []
    contestants = {name: (lambda name=name: order.append(name)) for name in "ab"}
    seconds = timing.race(contestants, rounds=2, warm=["b"])
    assert order == ["b", "a", "b", "a", "b"]
    assert {name: len(values) for name, values in seconds.items()} == {"a": 2, "b": 2}


def test_race_takes_another_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "_REST", 0.0)
    ticks = iter([1.0, 4.0, 10.0, 15.0])
    assert timing.race({"a": int}, rounds=2, clock=lambda: next(ticks)) == {"a": [3.0, 5.0]}


def test_race_finishes_a_round_and_stops_when_its_budget_is_spent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "_REST", 0.0)
    seconds = timing.race({"a": int, "b": int}, rounds=9, budget=-1.0)
    assert {name: len(values) for name, values in seconds.items()} == {"a": 1, "b": 1}


def test_exact_nearest_is_brute_force_with_the_lowest_index(random: np.random.Generator) -> None:
    bank = random.integers(-3, 3, (60, 5)).astype(np.float32)
    bank[40] = bank[7]
    queries = np.concatenate([bank[[40]], random.integers(-3, 3, (9, 5)).astype(np.float32)])
    squared = ((queries[:, None].astype(np.float64) - bank[None]) ** 2).sum(axis=2)
    index, distance = exact.nearest(queries, bank)
    assert index.tolist() == squared.argmin(axis=1).tolist()
    assert distance.tolist() == squared.min(axis=1).tolist()
    assert index[0] <= 7


def test_peers_find_the_nearest(random: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "_TORCH_BLOCK", 7)
    bank = random_rows(40, 8, seed=1)
    queries = bank[random.permutation(40)[:11]] + np.float32(0.01)
    expected = exact.nearest(queries, bank)[0].tolist()
    assert peers.torch_nearest(queries, bank)().tolist() == expected
    assert peers.sklearn_nearest(queries, bank)().tolist() == expected
    backward = exact.nearest(bank, queries)[0].tolist()
    for mutual in (peers.torch_mutual, peers.sklearn_mutual):
        assert [side.tolist() for side in mutual(queries, bank)()] == [expected, backward]
    if not faiss_missing:
        assert [side.tolist() for side in peers.faiss_mutual(queries, bank)()] == [expected, backward]


def test_peers_keep_their_own_blas_and_get_the_widest_kernel() -> None:
    before = {"OPENBLAS_CORETYPE": "Barcelona", "OPENBLAS_L2_SIZE": "512", "KEPT": "1"}
    assert environment.peer_environment(before, {"sse2"}, None) == {"KEPT": "1"}
    assert environment.peer_environment(before, {"avx2", "fma"}, None)["OPENBLAS_CORETYPE"] == "Haswell"
    wide = {"avx2", "fma", "avx512f", "avx512bw", "avx512vl", "avx512dq"}
    assert environment.peer_environment(before, wide, None)["OPENBLAS_CORETYPE"] == "SkylakeX"
    assert environment.peer_environment({}, set(), 2)["OMP_NUM_THREADS"] == "2"


def test_peers_are_limited_with_ours() -> None:
    wide = {"avx2", "fma", "avx512f", "avx512bw", "avx512vl", "avx512dq"}
    limited = environment.peer_environment({"OPENBLAS_NUM_THREADS": "9"}, wide, 1, "avx2")
    assert limited["INREACH_ISA"] == "avx2"
    assert (limited["OPENBLAS_CORETYPE"], limited["FAISS_SIMD_LEVEL"]) == ("Haswell", "AVX2")
    assert (limited["ATEN_CPU_CAPABILITY"], limited["OPENBLAS_NUM_THREADS"]) == ("avx2", "1")
    assert environment.peer_environment({}, wide, None, "scalar")["FAISS_SIMD_LEVEL"] == "NONE"
    assert environment.peer_environment({}, set(), None, "neon") == {"INREACH_ISA": "neon"}


def test_instruction_sets_to_measure_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "instruction_sets", lambda: ["avx512", "avx2", "scalar"])
    assert at_isa.wanted(None, quick=False) == at_isa.wanted("all", quick=True) == ["avx512", "avx2", "scalar"]
    assert at_isa.wanted(None, quick=True) == ["avx512", "avx2"]
    assert at_isa.wanted("scalar,avx2", quick=True) == ["scalar", "avx2"]
    assert (at_isa.only("avx2"), at_isa.only("all"), at_isa.only("avx2,scalar"), at_isa.only(None)) == (
        "avx2",
        *[None] * 3,
    )
    with pytest.raises(SystemExit, match="this machine has no neon; give some of avx512, avx2, scalar"):
        at_isa.wanted("avx2,neon", quick=False)


def test_cases_of_each_instruction_set_are_gathered(monkeypatch: pytest.MonkeyPatch) -> None:
    def child(options: list[str]) -> dict[str, Any]:
        assert options[:3] + options[4:] == ["--only", "brute", "--isa", "--quick"]
        run = at_isa.labelled(lambda: [{"name": "nearest"}], options[3])
        return {"machine": {"of": options[3]}, "sections": {"brute": {"cases": run()}}}

    monkeypatch.setattr(at_isa, "_child", child)
    machines: dict[str, Any] = {}
    cases = at_isa.each("brute", ["avx2", "scalar"], ["--quick"], machines)()
    assert [(case["name"], case["isa"]) for case in cases] == [("nearest, avx2", "avx2"), ("nearest, scalar", "scalar")]
    assert machines == {"avx2": {"of": "avx2"}, "scalar": {"of": "scalar"}}


def test_a_process_that_fails_is_named() -> None:
    with pytest.raises(RuntimeError, match=r"bench --no-such-option ended with exit code 2"):
        at_isa._child(["--no-such-option"])


@needs_faiss
def test_brute_force_has_its_goal_and_right_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "_REST", 0.0)
    (case,) = brute.run(quick=True, threads=1, sizes=((20, 70, 9),))
    _check_timed(case)
    assert case["name"] == "nearest, 20 x 70 x 9, CPU time"
    assert [goal["goal"] for goal in case["goals"]] == [f"1x {peers.FAISS}"]
    assert "20 of 20" in case["checks"].values()


def test_recall_takes_equally_near_rows_for_right() -> None:
    bank = np.array([[0, 0], [3, 4], [3, -4], [9, 9]], dtype=np.float32)
    queries = np.array([[3, 0], [9, 8], [0, 1], [1, 0]], dtype=np.float32)
    truth = np.array([0, 3, 0, 0])
    assert tuned.recall(queries, bank, truth, truth) == 1.0
    assert tuned.recall(queries, bank, np.array([1, 3, -1, 0]), truth) == 0.5  # a miss, and no answer at all
    assert tuned.recall(queries[:1] * 0, bank[1:], np.array([1]), np.array([0])) == 1.0  # as near as the other


def test_least_effort_is_found_by_doubling_and_halving() -> None:
    bank = np.arange(100, dtype=np.float32)[:, None]
    asked: list[int] = []

    def search_with(effort: int) -> np.ndarray:
        asked.append(effort)
        return np.arange(100) if effort >= 21 else np.zeros(100, dtype=np.int64)

    effort, reached, tried = approximate._least_effort(search_with, bank, bank, np.arange(100), 0.99, 4, 1000)
    assert asked == [4, 8, 16, 32, 24, 20, 22]
    assert (effort, reached) == (22, 1.0)
    assert tried["20"] == 0.01
    effort, reached, _ = approximate._least_effort(lambda _: np.zeros(100, int), bank, bank, np.arange(100), 0.99, 4, 9)
    assert (effort, reached) == (4, 0.01)  # out of reach: no more effort than helps


@needs_faiss
@pytest.mark.parametrize("peer", [approximate.hnsw, approximate.ivf])
def test_approximate_peers_are_read_again(peer: Any, tmp_path: Path) -> None:
    bank = random_rows(300, 8, seed=1)
    queries = bank[::7] + np.float32(0.01)
    truth = exact.nearest(queries, bank)[0]
    built = peer(queries, bank, truth, tmp_path)
    again = peer(queries, bank, truth, tmp_path)
    assert (built.cached, again.cached) == (False, True)
    assert built.recall >= 0.99
    assert (again.setting, again.recall) == (built.setting, built.recall)
    assert again.run().tolist() == built.run().tolist()
    other = peer(queries, bank[:-1], np.minimum(truth, 298), tmp_path)
    assert not other.cached
    assert not list(tmp_path.glob("*.partial"))


@needs_faiss
def test_panorama_rotates_without_changing_the_answer(random: np.random.Generator) -> None:
    if not panorama.available():
        pytest.skip("this faiss has no IndexFlatL2Panorama")
    bank = (random_rows(400, 32, seed=1) @ random.standard_normal((32, 32)) + 50).astype(np.float32)
    queries = bank[random.permutation(400)[:40]] + np.float32(0.1)
    mean, directions = frame = panorama.principal_frame(bank)
    np.testing.assert_allclose(directions.T @ directions, np.eye(32), atol=1e-5)
    spread = panorama.rotate(bank, frame).var(axis=0)
    assert (np.diff(spread) < 1e-3 * spread[0]).all()
    assert np.abs(mean - bank.mean(axis=0)).max() < 1e-3
    found = panorama.fastest(queries, bank, exact.nearest(queries, bank)[0], levels=(4, 8, 64), tried=16)
    assert found.recall == 1.0
    assert len(found.tried) == 4  # two levels (64 is more than there are values), then two more batches


@needs_faiss
def test_search_cases_have_the_schema_and_right_answers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(timing, "_REST", 0.0)
    query, bank = random_rows(30, 16, seed=3), random_rows(200, 16, seed=4)
    noise = search.nearest_case(query, bank, data=search.RANDOM, quick=True, scratch=tmp_path)
    features = search.nearest_case(query, bank, data="features", quick=True, scratch=tmp_path)
    assert not list(set(noise["seconds"]) & {panorama.NAME, approximate.HNSW, approximate.IVF})
    assert [goal["goal"] for goal in noise["goals"]] == [f"1x {peers.FAISS}"]
    assert {approximate.HNSW, approximate.IVF} <= set(features["seconds"])
    assert all(peer["recall"] >= 0.99 for peer in features["peers"].values())
    for case in (noise, features, search.mutual_case(query, bank, data="random", quick=True)):
        _check_timed(case)
        answers = {name: value for name, value in case["checks"].items() if name.startswith("equal to float64")}
        assert answers
        assert set(answers.values()) <= {"30 of 30", "200 of 200"}


def test_baseline_describes_as_the_package_does(random: np.random.Generator) -> None:
    from inreach_fast import kernels

    shapes = ((6, 8, 8), (10, 8, 8), (12, 4, 4))
    levels = [torch.from_numpy(random.standard_normal((1, *shape)).astype(np.float32)) for shape in shapes]
    theirs = baseline.describe(levels, dim=16)
    np.testing.assert_allclose(theirs, kernels.describe(levels, grid=(8, 8), dim=16)[0], rtol=1e-4, atol=1e-5)


def test_baseline_associates_and_filters_as_the_package_does(random: np.random.Generator) -> None:
    from nominal_rows import select_nominal

    places = 4 * random.standard_normal((1, 20, 12))
    x = (places + random.standard_normal((7, 20, 12))).astype(np.float32)
    seeds = np.arange(3)
    joined = association.associate(x, seeds)
    assert (joined >= 0).mean() > 0.5
    assert baseline.associate(x, seeds.tolist()).tolist() == joined.tolist()
    right, _, total = association.check(x, seeds, joined).partition(" of ")
    assert right == total
    ours = select_nominal(x.reshape(-1, 12), joined, seeds, min_length=3, max_std=5.0).rows
    assert 0 < len(ours) < 140
    assert baseline.filter_channels(x, joined, seeds.tolist(), 3, 5.0).tolist() == ours.tolist()


@needs_faiss
def test_whole_job_agrees_with_the_baseline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "_REST", 0.0)
    monkeypatch.setattr(whole, "_wide_forward", lambda: int)
    fit, predict, parts, large = whole.run(_TinyWork(), quick=True, images=10, rounds=1, patches=1000)
    for case in (fit, predict, parts, large):
        _check_timed(case)
    assert " 1024 nominal patches" in large["name"]
    assert len(large["seconds"][whole.WITHOUT]["values"]) == 5
    assert [goal["goal"] for goal in large["goals"]] == [f"1x {whole.WIDE_FORWARD}"]
    assert float(fit["checks"]["nominal patches that both chose"].split("%")[0]) > 95
    assert float(predict["checks"]["largest relative difference of image scores"]) < 0.1
    assert set(fit["stages"][whole.PEER]) >= {"backbone", "descriptors", "association", "filters"}


@needs_faiss
def test_parts_of_predict_at_each_instruction_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "_REST", 0.0)
    _core = pytest.importorskip("inreach_fast._core")
    work, before = _TinyWork(), _core.isa()
    *cases, frame, eights, single = predict_parts.run(work, quick=True, images=6, rounds=2)
    for case in (frame, eights, single):
        _check_timed(case)
        assert set(case["checks"].values()) & {f"{n} of {n}" for n in (1, 16, 32, 48, 64)}
    assert [goal["goal"] for goal in frame["goals"]][2:] == ["10 ms a frame"]
    assert _core.isa() == before
    assert {case["isa"] for case in cases} <= {before, *_core.isa_levels()}
    for case in cases:
        json.dumps(case)
        assert predict_parts.WHOLE in case["values"]
        assert all(len(one["values"]) == 2 for one in case["milliseconds"].values())
        wanted = predict_parts.GOALS_MS.get(case["isa"])
        assert [goal["goal"] for goal in case["goals"]] == (
            [f"{predict_parts.WHOLE} under {wanted:g} ms"] if wanted else []
        )


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="needs Linux' /proc")
def test_memory_counts_what_a_call_takes() -> None:
    size = 64 << 20

    def run() -> Any:
        # Freshly mapped pages: memory that an earlier test freed and the allocator kept would not count.
        with mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as fresh:
            pages = np.frombuffer(fresh, dtype=np.uint8)
            pages[:] = 1
            total = int(pages.sum(dtype=np.int64))
            del pages
        return total

    total, found = resident.watched(run)
    assert total == size
    assert 0.9 * size < found["peak"] < 1.6 * size
    now = resident.split()
    assert 0 < now["anonymous"] < now["resident"]
    assert now["anonymous"] + now["files"] <= now["resident"]


def test_results_are_written_as_json_and_markdown(tmp_path: Path) -> None:
    seconds = {"peer": [0.2, 0.4], "us": [0.1, 0.1]}
    timed = records.timed_case("nearest", seconds, data="random", ours="us", goals={"peer": 2, "absent": 9})
    value = records.value_case("fit", {"peak": 1.1, "disk": 7}, data="random", unit="GB", limits={"peak": 1})
    result = {
        "schema": records.SCHEMA,
        "date": "2026-01-01 00:00 UTC",
        "seconds": 1.0,
        "settings": {"quick": True, "features": "random", "note": environment.BLAS_NOTE},
        "machine": environment.describe_machine(),
        "instruction_sets": {"avx2": {**environment.describe_machine(), "inreach_fast": {"isa": "avx2"}}},
        "versions": environment.versions(),
        "commit": environment.commit(),
        "sections": {
            "search": {"seconds": 1.0, "cases": [timed], "notes": []},
            "memory": {"seconds": 1.0, "cases": [value]},
            "broken": {"seconds": 0.0, "cases": [], "error": "ValueError"},
        },
    }
    records.save(result, tmp_path / "a" / "r.json", tmp_path / "b" / "r.md")
    assert json.loads((tmp_path / "a" / "r.json").read_text()) == json.loads(json.dumps(result))
    text = (tmp_path / "b" / "r.md").read_text()
    assert "| peer | 300 ms (200 ms to 400 ms) | 3.00 (2.00 to 4.00) |" in text
    assert "**us** | 100 ms" in text
    assert "1.1 GB" in text
    assert "| nearest | random | 2x peer: 3x | yes |" in text
    assert "| fit | random | peak under 1 GB: 1.1 GB | **no** |" in text
    assert "- at avx2: ours avx2, torch " in text
    assert "absent" not in text
    assert "Did not run: ValueError" in text
    assert str(ROOT) not in text


def _check_timed(case: dict[str, Any]) -> None:
    json.dumps(case)
    assert {"name", "kind", "data", "ours", "goals", "seconds", "ratios"} <= set(case)
    assert case["ours"] in case["seconds"]
    assert set(case["ratios"]) == set(case["seconds"]) - {case["ours"]}
    for name, ratio in case["ratios"].items():
        peer, mine = case["seconds"][name]["values"], case["seconds"][case["ours"]]["values"]
        assert ratio["values"] == [a / b for a, b in zip(peer, mine, strict=True)]
        assert ratio["min"] <= ratio["median"] <= ratio["max"]


class _TinyBackbone:
    """Two levels of fixed random convolutions; enough of `Backbone` for a fit."""

    name, fingerprint, spec, levels = "tiny", "0" * 64, {"rebuildable": False}, ("a", "b")

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self._first = torch.randn(8, 3, 4, 4, generator=generator)
        self._second = torch.randn(12, 8, 2, 2, generator=generator)

    def extract(self, batch: np.ndarray) -> list[torch.Tensor]:
        x = torch.from_numpy(batch.copy()).permute(0, 3, 1, 2) / 255 - 0.5
        first = torch.nn.functional.conv2d(x, self._first, stride=4).relu()
        return [first, torch.nn.functional.conv2d(first, self._second, stride=2).relu()]


class _TinyWork:
    """Images of one blurred picture with a little noise each."""

    image_size, features = 32, "tiny"

    def __init__(self) -> None:
        self.backbone = _TinyBackbone()
        random = np.random.default_rng(0)
        self._picture = np.kron(random.integers(40, 200, (8, 8, 3)), np.ones((4, 4, 1)))

    def training_images(self, count: int, seed: int = 0) -> list[np.ndarray]:
        random = np.random.default_rng(seed)
        # The spread filter takes channels whose members all lie equally far from their mean, as equal noise does.
        noise = random.normal(0, 4, (count, *self._picture.shape)) * random.choice([0.2, 1, 4], (count, 1, 1, 1))
        return list(np.clip(self._picture + noise, 0, 255).astype(np.uint8))

    def test_images(self, count: int) -> list[np.ndarray]:
        return self.training_images(count, seed=1)

    def describe(self, image: np.ndarray) -> np.ndarray:
        from inreach_fast import kernels

        return kernels.describe(self.backbone.extract(image[None]), grid=(8, 8))[0]
