"""The accuracy bench on a small data set: its rules against brute force, its cases, its files."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))  # last: an installed package must not be hidden by the source tree

from bench import accuracy, accuracy_methods  # noqa: E402
from bench.workload import random_rows  # noqa: E402
from inreach_fast.evaluation.peers.patchcore import PatchMemory, coreset  # noqa: E402
from inreach_fast.evaluation.peers.softpatch import WeighedMemory  # noqa: E402

N, P, D = 5, 16, 6


@pytest.fixture(scope="module")
def rows() -> Any:
    return random_rows(N * P, D, seed=3).reshape(N, P, D)


def distances(a: Any, b: Any) -> Any:
    return ((a.astype(np.float64)[:, None] - b.astype(np.float64)[None]) ** 2).sum(axis=2)


def floors(rows: Any, images: list[int]) -> Any:
    """Squared distance from each patch of the images to the nearest patch of any other of them."""
    return np.stack([min_over([distances(rows[i], rows[j]) for j in images if j != i]) for i in images])


def min_over(parts: list[Any]) -> Any:
    return np.min([part.min(axis=1) for part in parts], axis=0)


def test_reachability_is_brute_force(rows: Any) -> None:
    fitted = accuracy_methods.reachability(rows)
    query = random_rows(P, D, seed=4)
    floor = floors(rows, list(range(N)))
    expected = np.maximum(distances(query, rows.reshape(-1, D)), floor.ravel()[None]).min(axis=1)
    np.testing.assert_allclose(fitted.score(query), expected, rtol=1e-5)
    # Left out, an image is as if it had never been there.
    others = [j for j in range(N) if j != 2]
    without = floors(rows, others)
    alone = np.maximum(distances(rows[2], rows[others].reshape(-1, D)), without.ravel()[None]).min(axis=1)
    assert fitted.own is not None
    np.testing.assert_allclose(fitted.own[2], alone, rtol=1e-5)


def test_two_images_confirm_each_other_and_nobody_could_instead(rows: Any) -> None:
    fitted = accuracy_methods.reachability(rows[:2])
    assert np.isfinite(fitted.score(rows[3])).all()
    assert fitted.own is not None
    assert np.isfinite(fitted.own).all()


def test_every_patch_is_the_nearest_one(rows: Any) -> None:
    fitted = accuracy_methods.every_patch(rows)
    query = random_rows(P, D, seed=4)
    np.testing.assert_allclose(fitted.score(query), distances(query, rows.reshape(-1, D)).min(axis=1), rtol=1e-6)
    assert fitted.own is not None
    np.testing.assert_allclose(fitted.own, floors(rows, list(range(N))), rtol=1e-6)


def test_peers_rules_are_those_of_the_evaluation() -> None:
    rows, query = random_rows(12 * P, D, seed=5).reshape(12, P, D), random_rows(P, D, seed=4)
    fitted = accuracy_methods.patchcore(rows)
    flat = rows.reshape(-1, D)
    bank = flat[coreset(flat, 0.1)]
    np.testing.assert_allclose(fitted.score(query), distances(query, bank).min(axis=1), rtol=1e-6)
    assert fitted.stored == bank.nbytes
    assert fitted.image_score is not None
    assert fitted.image_score(query, fitted.score(query)) == PatchMemory(bank).image_score(query, fitted.score(query))
    fitted, memory = accuracy_methods.softpatch(rows), WeighedMemory.of(rows)
    assert fitted.score(query).tolist() == memory.scores(query).tolist()
    assert fitted.stored == len(memory.bank) * (D + 1) * 4


def test_least_balanced_error() -> None:
    assert accuracy.least_balanced_error(np.array([1.0, 2], np.float32), np.array([3.0, 4], np.float32)) == 0
    assert accuracy.least_balanced_error(np.array([1.0, 3], np.float32), np.array([2.0, 4], np.float32)) == 0.25
    assert accuracy.least_balanced_error(np.array([2.0], np.float32), np.array([1.0], np.float32)) == 0.5


@pytest.fixture
def root(tmp_path: Path) -> Path:
    random = np.random.default_rng(1)
    for folder, count in (("train/good", 8), ("test/good", 3), ("test/spot", 6), ("ground_truth/spot", 6)):
        base = tmp_path / "data" / "part" / folder
        base.mkdir(parents=True)
        for i in range(count):
            image = random.integers(100, 140, (32, 32, 3), dtype=np.uint8)
            if "spot" in folder:
                image[8:16, 8:16] = 255
            if folder.startswith("ground_truth"):
                mask = np.zeros((32, 32), np.uint8)
                mask[8:16, 8:16] = 255
                Image.fromarray(mask).save(base / f"{i:03}_mask.png")
            else:
                Image.fromarray(image).save(base / f"{i:03}.png")
    return tmp_path / "data"


def test_bench_resumes_and_writes_a_table(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def described(image: Any, backbone: Any, side: int) -> Any:
        """3136 cells of the image's own intensities, repeated."""
        small = np.asarray(Image.fromarray(image).resize((56, 56)), dtype=np.float32).reshape(3136, 3)
        return np.tile(small, (1, 2))

    class Network:
        name = fingerprint = "none"

    class Work:
        backbone = Network

        def __init__(self, *_: str) -> None: ...

    monkeypatch.setattr(accuracy, "describe", described)
    monkeypatch.setattr(accuracy, "Workload", Work)
    monkeypatch.setattr(accuracy, "WIDTH", 6)
    results = tmp_path / "out.jsonl"
    arguments = [
        *("--data", str(root), "--corrupt", "40", "--orders", "2", "--images", "6"),
        *("--methods", "reachability,every patch,clean: reachability"),
        *("--scratch", str(tmp_path / "scratch"), "--results", str(results), "--markdown", str(tmp_path / "out.md")),
    ]
    assert accuracy.main(arguments) == 0
    lines = results.read_text().splitlines()
    assert len(lines) == 2 * 3
    table = (tmp_path / "out.md").read_text()
    assert "**part**, 40 % corrupt, 6 training images" in table
    records = [json.loads(line) for line in lines]
    mean = {
        method: np.mean([r["figures"]["image_auroc_overlap"] for r in records if r["method"] == method and r["share"]])
        for method in ("every patch", "clean: reachability")
    }
    assert mean["clean: reachability"] >= mean["every patch"]

    # A run that was killed while it wrote a line goes on; finished cases are not computed again.
    results.write_text("\n".join([*lines[:-1], lines[-1][:20]]) + "\n")
    monkeypatch.setattr(accuracy_methods, "RULES", {"reachability": accuracy_methods.reachability})
    capsys.readouterr()
    assert accuracy.main(arguments) == 0
    assert capsys.readouterr().err.count("image AUROC") == 1
    assert (tmp_path / "out.md").read_text().count("| reachability |") == 1


def test_cases_are_drawn_by_seed(root: Path, tmp_path: Path) -> None:
    class Work:
        backbone = None

    data = accuracy.Descriptors(root, "part", Work(), tmp_path)  # type: ignore[arg-type]
    one, again, other = data.case(40, 0, 5), data.case(40, 0, 5), data.case(40, 1, 5)
    assert np.array_equal(one.train, again.train)
    assert not np.array_equal(one.train, other.train)
    assert one.corrupt.sum() == 2
    assert [bool(data.samples[i].defective) for i in one.train] == one.corrupt.tolist()
    assert len(set(one.train.tolist())) == 5
    assert not data.case(0, 0, 100).corrupt.any()
    assert len(data.case(0, 0, 100).train) == 8


def test_unknown_methods_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        accuracy.main(["--methods", "magic"])
    assert "unknown method magic" in capsys.readouterr().err
