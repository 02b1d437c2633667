"""The protocol whole, on a tiny data set in MVTec's layout and a tiny untrained network."""

from __future__ import annotations

import csv
import json
import os
import shutil

import numpy as np
import pytest
import torch
from evaluation.mvtec_tree import write_class
from PIL import Image

from inreach_fast.backbones import Backbone
from inreach_fast.errors import DataError, ImageError, NonFiniteError, ParameterError, SaveError
from inreach_fast.evaluation import METHODS, ablation, contestant, details, report, supplement
from inreach_fast.evaluation.feature_cache import FeatureCache
from inreach_fast.evaluation.mvtec import make_training_set, read_dataset
from inreach_fast.evaluation.peers import Peer, PeerSettings, make_peer
from inreach_fast.evaluation.protocol import evaluate_class, figures, network_mask, resize_crop_mask
from inreach_fast.images.alignment import rotate_mask
from inreach_fast.images.preprocess import Geometry
from inreach_fast.images.reading import read_image
from inreach_fast.system.progress import no_progress

SMALL = {"image_size": 32, "resize": None, "dim": 8, "smoothing_sigma": 1.0, "align": "never"}


class Network(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.one = torch.nn.Conv2d(3, 8, 3, stride=4, padding=1)
        self.two = torch.nn.Conv2d(8, 8, 3, stride=2, padding=1)

    def forward(self, x):
        return self.two(torch.relu(self.one(x)))


@pytest.fixture(scope="module")
def backbone():
    torch.manual_seed(0)
    return Backbone.from_module(Network(), ["one", "two"], name="tiny")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_class(folder, size=32, n_train=6, defect=slice(8, 20))
    return folder


@pytest.fixture(scope="module")
def result(root, backbone):
    return evaluate_class(root, "bottle", corrupt=10, parameters=SMALL, backbone=backbone)


def test_result_of_one_class(result):
    assert result.counts["train"] == 16
    assert result.counts["corruptions"] == len(result.overlap) == 10
    assert result.counts["train_defective"] == result.counts["overlap_defective"] == 6
    assert result.with_overlap.images == result.counts["test"] == 42
    assert result.without_overlap.images == 32
    assert result.without_overlap.defective == result.with_overlap.defective - 6
    # A bright square on dark noise: even an untrained network finds it.
    assert result.with_overlap.image_auroc > 0.9
    # A patch inside the square sees less of it than one on its border.
    assert result.with_overlap.pixel_auroc > 0.7
    assert 0.4 < result.with_overlap.pro <= 1.0
    assert result.nominal.patches == 16 * 64
    # Six squares of 12 pixels from pixel 8 on cover cells 2 to 4 of the 8x8 grid.
    assert result.nominal.true_nominal == 16 * 64 - 6 * 9
    assert result.nominal.extracted == result.counts["nominal_patches"] > 0
    assert result.expected == {"image_auroc": 1.0, "pixel_auroc": 0.981, "transpose_score": 123.0}
    assert result.backbone == "tiny"
    assert result.fit_report["images"] == 16
    assert all(seconds >= 0 for seconds in result.seconds.values())


def test_cache_changes_no_figure_and_saves_the_backbone(root, backbone, result, tmp_path):
    cache = FeatureCache(tmp_path)
    first = evaluate_class(root, "bottle", corrupt=10, parameters=SMALL, backbone=backbone, cache=cache)
    computed = cache.misses
    # 6 good ones and the 42 test images, the ten corruptions among them once.
    assert computed == 48
    second = evaluate_class(root, "bottle", corrupt=40, shuffle=1, parameters=SMALL, backbone=backbone, cache=cache)
    assert cache.misses == computed
    assert cache.hits > 0
    assert second.counts["train"] == 46
    for name in ("with_overlap", "without_overlap", "nominal", "transpose_score"):
        assert getattr(first, name) == getattr(result, name)
    # Other describe parameters are other descriptors.
    evaluate_class(root, "bottle", parameters={**SMALL, "dim": 4}, backbone=backbone, cache=str(tmp_path))
    evaluate_class(root, "bottle", parameters={**SMALL, "neighbourhood": 1}, backbone=backbone, cache=cache)
    assert cache.misses == 2 * computed


def test_nothing_overlaps_without_corruptions(root, backbone):
    got = evaluate_class(root, "bottle", parameters=SMALL, backbone=backbone, shuffle=3)
    assert got.overlap == ()
    assert got.with_overlap == got.without_overlap
    assert got.nominal.precision == 1.0
    assert got.expected["pixel_auroc"] is None
    assert got.expected["image_auroc"] == 0.998


@pytest.mark.parametrize("method", ["patchcore", "padim", "spade", "softpatch"])
def test_a_peer_takes_inreachs_place(root, backbone, result, method):
    got = evaluate_class(root, "bottle", corrupt=10, parameters=SMALL, backbone=backbone, method=method, details=True)
    assert (got.method, got.label, got.backbone) == (method, METHODS[method], "tiny")
    for name in ("images", "defective"):
        assert getattr(got.with_overlap, name) == getattr(result.with_overlap, name)
        assert getattr(got.without_overlap, name) == getattr(result.without_overlap, name)
    assert got.overlap == result.overlap
    assert got.counts == {name: n for name, n in result.counts.items() if name != "nominal_patches"}
    assert 0 <= got.with_overlap.pro <= 1
    assert got.nominal.precision is got.nominal.recall is got.audit.auroc is got.transpose_score is None
    assert got.expected == {"image_auroc": None, "pixel_auroc": None, "transpose_score": None}
    assert got.parameters["image_size"] == [32, 32]
    assert "dim" not in got.parameters  # it is InReaCh's
    assert set(make_peer(method, PeerSettings((32, 32), lambda: backbone)).parameters()) < set(got.parameters)
    assert got.details.threshold_from_labels
    # At the best F1 the verdicts are those of the figure.
    good, *bad = sorted(got.details.kinds, key=lambda kind: kind.kind != "good")
    right = sum(kind.found for kind in bad)
    wrong = good.found + got.with_overlap.defective - right
    assert 2 * right / (2 * right + wrong) == pytest.approx(got.with_overlap.image_best_f1)
    assert json.loads(json.dumps(got.as_dict()))["method"] == method
    clean = evaluate_class(root, "bottle", parameters=SMALL, backbone=backbone, method=method)
    assert clean.with_overlap.image_auroc == 1.0
    assert clean.with_overlap.pixel_auroc > 0.7
    assert clean.details is None


def test_a_threshold_from_labels_needs_both_kinds():
    scores = np.array([3, 1, 2, 5], np.float32)
    bad = np.array([True, False, False, True])
    threshold = details._best_threshold(bad, scores)
    assert (scores > threshold).tolist() == bad.tolist()
    for alike in (bad & False, bad | True):
        assert details._best_threshold(alike, scores) == 5.0


def test_a_peers_errors_name_the_file(root, backbone):
    class Broken:
        name, runtime, fingerprint, device, spec = "broken", "torch", "broken", backbone.device, {}
        level_shapes = backbone.level_shapes

        def extract(self, batch, **options):
            return [level * float("nan") for level in backbone.extract(batch, **options)]

    with pytest.raises(NonFiniteError, match=r"bottle.train.good.\w+\.png hold NaN"):
        evaluate_class(root, "bottle", parameters=SMALL, backbone=Broken(), method="patchcore")


def test_inreachs_result_names_its_method_and_nothing_else_is_new(result):
    assert result.method == "inreach"
    assert result.label == ""
    assert list(result.as_dict())[-1] == "method"


def test_figures_of_other_methods_are_table_1s(root, backbone):
    got = evaluate_class(root, "bottle", parameters=SMALL, backbone=backbone, method="patchcore")
    assert got.expected["image_auroc"] == 1.0
    assert supplement.expected_figures("pill", 0, method="cutpaste")["image_auroc"] == 0.934
    assert supplement.expected_figures("pill", 0, method="patchsvdd")["image_auroc"] == 0.861
    assert supplement.expected_figures("pill", 0, method="padim")["image_auroc"] is None  # an average alone
    assert supplement.expected_figures("pill", 10, method="patchcore")["image_auroc"] is None
    assert supplement.expected_figures("pill", 0, method="softpatch")["image_auroc"] is None


def test_a_peer_gets_what_inreachs_network_would_see(root, backbone, monkeypatch, tmp_path):
    """The training list in its order, resized and cropped; a folder beside the cache; no backbone that nobody asks."""
    seen = {}

    class Recorder(Peer):
        def fit(self, images, progress=no_progress):
            seen["trained"], seen["settings"] = list(images), self.settings

        def predict(self, image):
            seen.setdefault("tested", []).append(image)
            return float(image.max()), np.zeros(image.shape[:2], np.float32)

    monkeypatch.setattr(contestant, "make_peer", lambda method, settings: Recorder(settings))
    shape = {**SMALL, "image_size": 24, "resize": 28, "random_state": 5}
    got = evaluate_class(
        root, "bottle", corrupt=10, shuffle=3, parameters=shape, backbone=backbone, cache=tmp_path, method="spade"
    )
    training = make_training_set(read_dataset(root, "bottle"), corrupt=10, shuffle=3).samples
    geometry = Geometry((28, 28), (24, 24))
    for got_images, samples in ((seen["trained"], training), (seen["tested"], read_dataset(root, "bottle").test)):
        for image, sample in zip(got_images, samples, strict=True):
            np.testing.assert_array_equal(image, geometry.apply(read_image(sample.path)))
    settings = seen["settings"]
    assert (settings.image_size, settings.seed, settings.folder) == ((24, 24), 5, tmp_path / "peers")
    assert got.backbone == "its own"
    assert settings.backbone().name == "tiny"


def test_a_peer_skips_what_cannot_be_read(tmp_path, backbone):
    base = write_class(tmp_path, size=32, n_train=4, defect=slice(8, 20))
    (base / "train" / "good" / "001.png").write_bytes(b"no image")
    (base / "test" / "good" / "100.png").write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"001\.png"):
        evaluate_class(tmp_path, "bottle", parameters=SMALL, backbone=backbone, method="padim")
    got = evaluate_class(tmp_path, "bottle", parameters=SMALL, backbone=backbone, method="padim", skip_bad=True)
    assert got.skipped == ("test/good/100.png", "train/good/001.png")
    assert got.counts["train"] == got.fit_report["images"] == 3
    for path in (base / "train" / "good").iterdir():
        path.write_bytes(b"no image")
    with pytest.raises(DataError, match="none of the training images can be read"):
        evaluate_class(tmp_path, "bottle", parameters=SMALL, backbone=backbone, method="padim", skip_bad=True)


def test_what_peers_do_not_know_is_refused(root, backbone):
    for changes in ({"roi": [(0, 0), (1, 0), (1, 0.5)]}, {"tile": 2, "tile_overlap": 8}, {"quantization": "int8"}):
        with pytest.raises(ParameterError, match=f"{next(iter(changes))}: patchcore does not know it"):
            evaluate_class(root, "bottle", parameters=SMALL | changes, backbone=backbone, method="patchcore")
    with pytest.raises(ParameterError, match="method: 'magic' is none; choose from inreach, "):
        evaluate_class(root, "absent", method="magic")


def test_masks_follow_their_images():
    rng = np.random.default_rng(0)
    for shape, resize, crop in [((20, 31), None, (16, 21)), ((20, 31), (24, 24), (15, 20)), ((9, 9), (18, 27), None)]:
        mask = rng.random(shape) < 0.3
        geometry = Geometry(resize=resize, crop=crop)
        got = resize_crop_mask(mask, geometry)
        assert got.shape == (geometry.crop or geometry.resize)
        if resize is None:
            as_image = np.repeat(mask[:, :, None].astype(np.uint8), 3, axis=2)
            np.testing.assert_array_equal(got, geometry.apply(as_image)[:, :, 0] > 0)
    # Nearest: twice the size is every pixel twice and three times.
    np.testing.assert_array_equal(got, mask.repeat(2, axis=0).repeat(3, axis=1))


def test_masks_turn_with_their_images(root):
    sample = next(s for s in read_dataset(root, "bottle").test if s.defective)
    geometry = Geometry(resize=(32, 32), crop=None)
    upright, turned = network_mask(sample, geometry), network_mask(sample, geometry, 90)
    np.testing.assert_array_equal(turned, rotate_mask(upright, 90))
    np.testing.assert_array_equal(turned, np.rot90(upright))
    assert not np.array_equal(upright, turned)


def test_aligned_class_is_evaluated_in_the_turned_frame(tmp_path, backbone, monkeypatch):
    """With alignment kept, each test mask and training mask takes its own image's angle."""
    from inreach_fast.evaluation import protocol

    write_class(tmp_path, size=32, n_train=6, defect=slice(8, 20))
    asked = []
    original = protocol.network_mask

    def spy(sample, geometry, degrees=0, *rule):
        asked.append((sample.path, degrees))
        return original(sample, geometry, degrees, *rule)

    monkeypatch.setattr(protocol, "network_mask", spy)
    # Noise never passes the test after a search: force the outcome.
    turned = {}
    from inreach_fast.fit import reading
    from inreach_fast.images.alignment import Alignment

    def aligned(images, *, threshold, **options):
        angles = np.arange(len(images), dtype=np.int64) * 90 % 360
        turned.update({image.tobytes(): degrees for image, degrees in zip(images, angles.tolist(), strict=True)})
        return Alignment(threshold - 1, threshold + 1, threshold, True, angles, images[0].copy())

    monkeypatch.setattr(reading, "align_images", aligned)
    got = evaluate_class(tmp_path, "bottle", corrupt=10, parameters={**SMALL, "align": "auto"}, backbone=backbone)
    assert [degrees for _, degrees in asked[:16]] == [turned[read_image(path).tobytes()] for path, _ in asked[:16]]
    assert len(set(turned.values())) == 4
    # A test image that is the reference itself is not turned; others find angles of their own.
    assert len({degrees for _, degrees in asked[16:]}) > 5
    assert got.positions
    assert got.with_overlap.pixel_auroc is not None


def test_figures_without_a_class_are_none():
    masks, maps = [np.zeros((4, 4), bool)] * 2, [np.ones((4, 4), np.float32)] * 2
    got = figures(np.array([False, False]), np.array([1, 2], np.float32), masks, maps)
    assert got.image_auroc is got.pixel_auroc is got.pro is got.pixel_best_f1 is None
    assert (got.images, got.defective) == (2, 0)
    nothing = figures(np.array([True, False]), np.array([1, 2], np.float32), masks, maps, keep=np.zeros(2, bool))
    assert nothing.images == 0
    assert nothing.image_auroc is None


def test_ablation_rows_are_the_columns_of_table_2(root, backbone, tmp_path):
    from inreach_fast.evaluation.supplement import supplement_table
    from inreach_fast.parameters import Parameters

    assert [(r.key, r.name) for r in ablation.ABLATION_ROWS] == [
        (c["key"], c["name"]) for c in supplement_table(2)["columns"]
    ]
    made = {r.key: Parameters.from_preset("paper", **r.overrides) for r in ablation.ABLATION_ROWS}
    paper = Parameters.from_preset("paper")
    assert made["position_embedding"] == paper
    assert made["base"].neighbourhood == 1
    assert made["local_aggregation"].neighbourhood == 3
    switches = [(made[r.key].span_filter, made[r.key].spread_filter) for r in ablation.ABLATION_ROWS[:5]]
    assert switches == [(False, False), (False, False), (True, False), (True, True), (True, True)]
    seen = []
    got = ablation.run_ablation(
        root,
        "bottle",
        rows=["base", "mahalanobis"],
        parameters={k: v for k, v in SMALL.items() if k != "align"},
        backbone=backbone,
        cache=tmp_path,
        on_result=seen.append,
    )
    assert got == seen
    assert [r.label for r in got] == ["Base InReaCh", "Mahalanobis"]
    assert [r.expected["pixel_auroc"] for r in got] == [0.977, 0.636]
    # Table 1 is the proposed configuration's.
    assert [r.expected["image_auroc"] for r in got] == [None, None]
    assert got[0].parameters["neighbourhood"] == 1
    assert got[1].parameters["score"] == "mahalanobis"
    with pytest.raises(ParameterError, match="bogus"):
        ablation.run_ablation(root, "bottle", rows=["bogus"])


def test_depth_sweep(root, monkeypatch):
    monkeypatch.setattr(ablation, "evaluate_class", lambda **arguments: arguments)
    got = ablation.run_depth_sweep(root, "bottle", depths=[1, 13, "PC"], parameters=SMALL, corrupt=40)
    assert [run["label"] for run in got] == ["depth 1", "depth 13", "depth PC"]
    assert [run["parameters"] for run in got] == [SMALL | {"depth": depth} for depth in (1, 13, "PC")]
    assert [run["table2_column"] for run in got] == [None, "position_embedding", None]
    assert got[0]["corrupt"] == 40


def test_depth_list():
    assert ablation.depth_list("1..13,PC") == list(ablation.FIGURE1_DEPTHS)
    assert ablation.depth_list("3, 7,pc,3") == [3, 7, "PC"]
    for bad in ("0", "14", "5..3", "", "x", "1..", "1...3", "1,"):
        with pytest.raises(ParameterError, match="depth"):
            ablation.depth_list(bad)


def test_tables(result):
    table = report.format_table([result])
    head, rule, row = table.splitlines()
    assert "(suppl.)" in head
    assert set(rule) <= set("|-: ")
    assert "bottle" in row
    assert "authors'" in row
    assert f"{result.with_overlap.image_auroc:.3f}" in row
    assert "0.981" in row
    assert len({line.count("|") for line in table.splitlines()}) == 1
    # No label, so no column for it.
    assert "Run" not in head
    plain = report.format_table([result], style="plain")
    assert "|" not in plain
    with pytest.raises(ParameterError, match="style"):
        report.format_table([result], style="html")


def test_averages_and_summary(result):
    from dataclasses import replace

    def with_auroc(name, value, shuffle=None):
        figures = replace(result.with_overlap, image_auroc=value)
        return replace(result, class_name=name, with_overlap=figures, shuffle=shuffle)

    two = [with_auroc("bottle", 1.0), with_auroc("pill", 0.5)]
    average = report.format_table(two, style="plain").splitlines()[-1]
    assert average.startswith("Average")
    assert "0.750" in average
    assert "Average" not in report.format_table(two[:1])
    gap = [two[0], with_auroc("pill", None)]
    assert "1.000" not in report.format_table(gap, style="plain").splitlines()[-1].split("(suppl.)")[0][:40]
    seeds = [with_auroc("pill", value, seed) for seed, value in enumerate([0.6, 0.8, 0.7])]
    row = report.format_summary(seeds, style="plain").splitlines()[-1]
    assert "0.700 [0.600, 0.800]" in row
    assert len(report.format_summary(seeds).splitlines()) == 3


def test_files(result, tmp_path):
    path = report.write_json([result], tmp_path / "out.json")
    (loaded,) = json.loads(path.read_text(encoding="utf-8"))
    assert loaded["with_overlap"]["pixel_auroc"] == result.with_overlap.pixel_auroc
    assert loaded["nominal"]["precision"] == result.nominal.precision
    assert loaded["parameters"]["dim"] == 8
    with report.write_csv([result], tmp_path / "out.csv").open(newline="", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    assert float(row["with_overlap_pixel_auroc"]) == result.with_overlap.pixel_auroc
    assert row["class_name"] == "bottle"
    assert float(row["expected_pixel_auroc"]) == 0.981
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.csv", "out.json"]
    with pytest.raises(SaveError, match="nowhere"):
        report.write_csv([result], tmp_path / "nowhere" / "out.csv")


def test_failed_write_leaves_the_old_file(result, tmp_path, monkeypatch):
    path = tmp_path / "out.json"
    path.write_text("old")

    def full(*_args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(SaveError, match=r"out\.json"):
        report.write_json([result], path)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["out.json"]


def test_a_class_without_its_corruption_list_is_named(root, backbone, tmp_path):
    (root / "bottle").rename(root / "part")
    try:
        with pytest.raises(DataError, match="part"):
            evaluate_class(root, "part", corrupt=10, parameters=SMALL, backbone=backbone)
    finally:
        (root / "part").rename(root / "bottle")


# ---------------------------------------------------------------------------------------- data that are not complete


def evaluated(root, backbone, **options):
    return evaluate_class(root, "bottle", parameters={**SMALL, "min_channel_length": 1}, backbone=backbone, **options)


def test_broken_images_and_masks_are_left_out_and_named(tmp_path, backbone):
    base = write_class(tmp_path, size=32, n_train=6, defect=slice(8, 20))
    data = read_dataset(tmp_path, "bottle")
    defective = [s for s in data.test if s.defective]
    broken = [data.train[1].path, data.test[-1].path, defective[0].mask_path]
    with_all = evaluated(tmp_path, backbone)
    for path in broken:
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
        with pytest.raises(ImageError, match=path.name):
            evaluated(tmp_path, backbone)
        path.write_bytes(content)
    for path in broken:
        path.write_bytes(b"")
    result = evaluated(tmp_path, backbone, skip_bad=True)
    assert set(result.skipped) == {
        f"train/{data.train[1].name}",
        f"test/{data.test[-1].name}",
        f"test/{defective[0].name}",
    }
    assert (result.counts["train"], result.counts["test"]) == (5, 40)
    assert result.counts["skipped"] == len([r for r in result.remarks if r.startswith("left out: ")]) == 3
    assert all(any(str(path) in remark for remark in result.remarks) for path in broken)
    # The same as if they had never been there.
    for path in [*broken[:2], broken[2], defective[0].path]:
        path.unlink()
    rest = evaluated(tmp_path, backbone)
    assert (rest.skipped, rest.remarks) == ((), ())
    assert rest.with_overlap == result.with_overlap
    assert rest.nominal == result.nominal
    assert with_all.counts["test"] == 42
    assert base.is_dir()


def test_broken_corruptions_are_left_out(tmp_path, backbone):
    write_class(tmp_path, size=32, n_train=6, defect=slice(8, 20))
    first = evaluated(tmp_path, backbone, corrupt=10).overlap[0]
    (tmp_path / "bottle" / "test" / first).write_bytes(b"")
    result = evaluated(tmp_path, backbone, corrupt=10, skip_bad=True)
    assert (result.counts["corruptions"], result.counts["test"], len(result.overlap)) == (9, 41, 9)
    assert result.skipped == (f"test/{first}",)
    assert result.counts["train"] == 15


def test_black_masks_are_good_images(tmp_path, backbone):
    write_class(tmp_path, size=32, n_train=6, defect=slice(8, 20))
    for sample in read_dataset(tmp_path, "bottle").test:
        if sample.name.startswith("contamination/"):
            Image.new("L", (32, 32)).save(sample.mask_path)
    result = evaluated(tmp_path, backbone, corrupt=10)
    names = [s.name for s in read_dataset(tmp_path, "bottle").test]
    assert result.counts["test_defective"] == sum(not name.startswith(("good/", "contamination/")) for name in names)
    assert result.with_overlap.defective == result.counts["test_defective"]


def test_image_figures_need_no_masks(tmp_path, backbone, result):
    write_class(tmp_path, size=32, n_train=6, defect=slice(8, 20))
    shutil.rmtree(tmp_path / "bottle" / "ground_truth")
    bare = evaluate_class(tmp_path, "bottle", corrupt=10, parameters=SMALL, backbone=backbone)
    for name in ("image_auroc", "image_average_precision", "image_best_f1", "defective"):
        assert getattr(bare.with_overlap, name) == getattr(result.with_overlap, name)
    assert bare.with_overlap.pixel_auroc is bare.with_overlap.pro is bare.nominal.precision is None
    assert bare.nominal.extracted == result.nominal.extracted
    assert len(bare.remarks) == 2  # with the images trained on, and without
    assert all("no pixel figures" in remark and "have no mask" in remark for remark in bare.remarks)
    assert "-" in report.format_table([bare, result])
    report.write_csv([bare], tmp_path / "a.csv")
    report.write_json([bare], tmp_path / "a.json")
    assert json.loads((tmp_path / "a.json").read_text())[0]["remarks"] == list(bare.remarks)


@pytest.mark.parametrize("kept", ["good", "defective"])
def test_one_class_of_test_images(tmp_path, backbone, kept):
    base = write_class(tmp_path, size=32, n_train=6, defect=slice(8, 20))
    for folder in (base / "test").iterdir():
        if (folder.name == "good") != (kept == "good"):
            shutil.rmtree(folder)
    found = evaluated(tmp_path, backbone)
    assert found.with_overlap.image_auroc is None
    assert (found.with_overlap.pixel_auroc is None) == (kept == "good")
    assert any(f"all {found.counts['test']} test images are {kept}" in remark for remark in found.remarks)
    assert any("no pixel figures" in remark for remark in found.remarks) == (kept == "good")
    assert report.format_table([found])


def test_a_copy_in_the_training_images_has_its_originals_patches(tmp_path, backbone):
    write_class(tmp_path, size=32, n_train=6, defect=slice(8, 20))
    once = evaluate_class(tmp_path, "bottle", parameters=SMALL, backbone=backbone)
    good = tmp_path / "bottle" / "train" / "good"
    for path in sorted(good.iterdir()):
        shutil.copy(path, good / f"copy-of-{path.name}")
    twice = evaluate_class(tmp_path, "bottle", parameters={**SMALL, "assoc_depth": 12}, backbone=backbone)
    assert twice.counts["train"] == 12
    assert twice.nominal.patches == 2 * once.nominal.patches
    assert (twice.nominal.precision, twice.nominal.recall) == (once.nominal.precision, once.nominal.recall)
    assert twice.with_overlap == once.with_overlap


# ------------------------------------------------------------------------------------------ audit and details


def test_the_audit_is_that_of_the_training_images_own_scores(root, backbone, result):
    assert result.audit.share == 6 / 16
    assert result.audit.auroc > 0.9
    assert result.audit.precision >= 5 / 6
    assert result.audit.error == pytest.approx(result.audit.estimate - 6 / 16)
    flat = report._flat(result)
    assert flat["audit_auroc"] == result.audit.auroc
    assert "Audit AUROC" in report.format_table([result])
    assert result.as_dict()["audit"]["precision"] == result.audit.precision
    clean = evaluate_class(root, "bottle", parameters=SMALL, backbone=backbone)
    assert clean.audit.auroc is None
    assert clean.fit_report["threshold_images"] == 2
    assert "Audit AUROC" not in report.format_table([clean])


def test_details_are_those_of_the_figures(root, backbone, result):
    got = evaluate_class(root, "bottle", corrupt=10, parameters=SMALL, backbone=backbone, details=True)
    assert got.with_overlap == result.with_overlap
    assert result.details is None
    details = got.details
    for curve, area in ((details.roc, got.with_overlap.image_auroc), (details.pro, None)):
        x, y = curve
        assert (np.diff(x) >= 0).all()
        assert (np.diff(y) >= 0).all()
        assert (x[0], y[0], x[-1], y[-1]) == (0, 0, 1, pytest.approx(1))
        if area is not None:
            assert np.sum(np.diff(x) * (y[1:] + y[:-1]) / 2) == pytest.approx(area)
    kinds = {kind.kind: kind for kind in details.kinds}
    assert sum(kind.images for kind in details.kinds) == got.counts["test"]
    assert kinds["good"].image_auroc is None
    defective = [kind for name, kind in kinds.items() if name != "good"]
    assert all(0 <= kind.image_auroc <= 1 and 0 <= kind.pro <= 1 for kind in defective)
    # An image is above the threshold as `predict` says.
    assert 0 < sum(kind.found for kind in defective) <= sum(kind.images for kind in defective)
    assert len(details.predict_seconds) == got.counts["test"]
    missed, alarms = details.cases["missed most"], details.cases["nearest to a false alarm"]
    assert len(missed) == len(alarms) == 3
    assert [case.score for case in missed] == sorted(case.score for case in missed)
    assert all(case.defective for case in missed)
    assert not any(case.defective for case in alarms)
    best = details.cases["clearest defects"][0]
    assert best.score >= missed[-1].score
    assert best.image.shape == (32, 32, 3)
    assert best.anomaly_map.max() == pytest.approx(best.score)
    assert best.mask.any()
    assert [kind["kind"] for kind in got.as_dict()["kinds"]] == list(kinds)
    json.dumps(got.as_dict())
    assert "kinds" not in report._flat(got)


def test_only_what_the_region_of_interest_holds_is_evaluated(root, backbone):
    """The defects are in rows and columns 8 to 19; cells are 4 pixels wide."""
    inside = np.zeros((32, 32), dtype=bool)
    inside[4:28, 4:24] = True
    found = evaluate_class(root, "bottle", parameters={**SMALL, "roi": inside}, backbone=backbone, details=True)
    assert found.with_overlap.pixel_auroc > 0.6
    assert 0 < found.with_overlap.pro <= 1
    rates, overlaps = found.details.pro
    assert (rates[-1], overlaps[-1]) == (1, pytest.approx(1))
    assert found.nominal.patches == 30 * found.counts["train"]  # 6 x 5 cells of the grid
    assert np.isnan(found.details.cases["clearest defects"][0].anomaly_map).any()
    outside = np.zeros((32, 32), dtype=bool)
    outside[:, 20:] = True
    found = evaluate_class(root, "bottle", parameters={**SMALL, "roi": outside}, backbone=backbone, details=True)
    assert found.with_overlap.pixel_auroc is None
    assert found.details.pro is None
    assert any("no test image has a defective pixel where the network sees it" in words for words in found.remarks)


def test_pixels_that_were_not_inspected_do_not_count():
    random = np.random.default_rng(0)
    labels, scores = np.array([True, False]), np.array([2.0, 1.0], np.float32)
    masks = [np.zeros((6, 8), dtype=bool), np.zeros((6, 8), dtype=bool)]
    masks[0][2:4, 1:3] = True
    maps = [random.random((6, 8)).astype(np.float32) for _ in masks]
    whole = figures(labels, scores, [mask[:, :5] for mask in masks], [one[:, :5] for one in maps])
    for one in maps:
        one[:, 5:] = np.nan
    assert figures(labels, scores, masks, maps) == whole
