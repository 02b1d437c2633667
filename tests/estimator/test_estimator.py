from __future__ import annotations

import gc
import json
import os
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reference
import torch
from descriptor_sets import shared_patches
from numpy.typing import NDArray
from PIL import Image
from small_fits import estimator, pictures, tiny_backbone

from inreach_fast import InReaCh
from inreach_fast.errors import (
    BackboneError,
    BackboneMismatchError,
    DegenerateDataError,
    EmptyFolderError,
    ImageError,
    MixedSizesError,
    ModelCorruptError,
    NoChannelsError,
    NonFiniteError,
    NotFittedError,
    ParameterError,
    TooFewImagesError,
    WeightsError,
)
from inreach_fast.kernels import available_backends
from inreach_fast.method.arrangement import Arrangement, choose_seeds, order_of
from inreach_fast.method.threshold import robust_threshold
from inreach_fast.storage.inputs import array_digest, stacked_digests

Pixels = NDArray[np.uint8]


@pytest.fixture(scope="module")
def fitted() -> InReaCh:
    return estimator().fit(pictures())


def same_model(a: InReaCh, b: InReaCh) -> bool:
    arrays = ("patches", "image_index", "patch_index", "channel_seed_image", "channel_seed_patch")
    return a.threshold_ == b.threshold_ and all(
        np.array_equal(getattr(a.nominal_, n), getattr(b.nominal_, n)) for n in arrays
    )


# ------------------------------------------------------------------------------------ against the reference


@pytest.mark.parametrize("backend", available_backends())
@pytest.mark.parametrize("pairs", ["all", "later"])
def test_a_whole_fit_is_the_references(backend: str, pairs: str) -> None:
    x = shared_patches(8, 16, 12)
    parameters: dict[str, Any] = {"assoc_pairs": pairs, "assoc_depth": 3, "image_size": 16, "random_state": 5}
    model = InReaCh("channels", backend=backend, **parameters).fit_descriptors(x, (4, 4))
    digests = stacked_digests([array_digest(image) for image in x])
    arrangement = Arrangement.of(digests, order_of(model.parameters))
    seeds, first = choose_seeds(arrangement, digests, 3, "random", 5), arrangement.first
    members = reference.associate(x[first], seeds, pairs)
    want = reference.nominal_patches(x[first], members, about_mean=True)
    want = want._replace(image_index=first[want.image_index], channel_seed_image=first[want.channel_seed_image])
    for name in want._fields:
        assert np.array_equal(getattr(model.nominal_, name), getattr(want, name)), name

    query = shared_patches(3, 16, 12, seed=8)
    got = model.score_descriptors(query)
    for i, rows in enumerate(query):
        scores = reference.patch_scores(rows, want.patches).reshape(4, 4)
        np.testing.assert_array_equal(got.patch_scores[i], scores.astype(np.float32))
        smoothed = reference.anomaly_map(scores, 16, 16, 5.0)
        np.testing.assert_allclose(got.anomaly_map[i], smoothed, rtol=1e-6)
        assert got.score[i] == pytest.approx(reference.image_score(smoothed), rel=1e-6)

    loo = []
    for i in range(8):
        others = want.patches[want.image_index != i]
        loo.append(
            reference.image_score(
                reference.anomaly_map(reference.patch_scores(x[i], others).reshape(4, 4), 16, 16, 5.0)
            )
        )
    np.testing.assert_allclose(model.training_scores(), loo, rtol=1e-6)
    assert model.threshold_ == robust_threshold(model.training_scores())


def test_provenance_leads_back_to_the_descriptor() -> None:
    x = shared_patches(8, 16, 12)
    model = InReaCh("channels", image_size=16).fit_descriptors(x, (4, 4))
    nominal = model.nominal_
    assert np.array_equal(x[nominal.image_index, nominal.patch_index], nominal.patches)
    found = model.score_descriptors(nominal.patches[:16]).nearest.ravel()
    assert np.array_equal(nominal.patches[found], nominal.patches[:16])


@pytest.mark.parametrize(
    "value", [np.nan, np.inf, -np.inf, -1, -1e-9, "5", b"5", None, True, np.True_, [3.0], np.ones(1), 1j]
)
def test_a_threshold_is_a_finite_number_of_at_least_0(value: Any) -> None:
    model = InReaCh(image_size=16).fit_descriptors(shared_patches(8, 16, 12), (4, 4))
    before = model.threshold_
    with pytest.raises(ParameterError, match=r"threshold_: expected a finite number, 0 or more, got"):
        model.threshold_ = value
    assert model.threshold_ == before
    with pytest.raises(NotFittedError):
        InReaCh().threshold_ = 3.0
    for good in (0, 3, np.float32(2.5), np.int64(7), np.array(4.0)):
        model.threshold_ = good
        assert model.threshold_ == float(good)
        assert type(model.threshold_) is float


def test_a_saved_threshold_that_is_no_number_is_refused(fitted: InReaCh, tmp_path: Path) -> None:
    from inreach_fast.storage import model_file

    fitted.save(tmp_path / "model")
    meta, arrays = model_file.load_file(tmp_path / "model")
    model_file.save_file(tmp_path / "bad", {**meta, "threshold": "nan"}, arrays)
    with pytest.raises(ModelCorruptError, match="the threshold nan"):
        InReaCh.load(tmp_path / "bad")


# -------------------------------------------------------------------------------------------- independence


@pytest.mark.parametrize("changes", [{"batch_size": 1}, {"batch_size": 3}, {"backend": "torch"}])
def test_results_do_not_depend_on_batch_size_or_backend(fitted: InReaCh, changes: dict[str, Any]) -> None:
    assert same_model(estimator(**changes).fit(pictures()), fitted)


def test_one_image_has_the_bits_that_it_has_in_a_batch(fitted: InReaCh) -> None:
    images = pictures(11, seed=3)
    batch = fitted.predict(images)
    assert batch.anomaly_map.shape == (11, 32, 32)
    for i in (0, 7, 8, 10):
        one = fitted.predict(images[i])
        assert isinstance(one.score, float)
        assert isinstance(one.is_anomalous, bool)
        assert one.score == batch.score[i]
        assert one.anomaly_map.tobytes() == batch.anomaly_map[i].tobytes()
        assert one.patch_scores.tobytes() == batch.patch_scores[i].tobytes()
        assert np.array_equal(one.nearest, batch.nearest[i])
        assert one.original_size == (40, 36)


def test_random_state_decides() -> None:
    a, b, c = (estimator(random_state=s).fit(pictures()) for s in (1, 1, 2))
    assert same_model(a, b)
    assert not same_model(a, c)


# ---------------------------------------------------------------------------------------------- behaviour


def test_a_defect_scores_higher_where_it_is(fitted: InReaCh) -> None:
    good, bad = pictures(1, seed=77)[0], pictures(1, seed=77)[0]
    bad[24:34, 2:12] = (255, 0, 0)
    before, after = fitted.predict([good, bad])
    assert after.score > before.score
    assert after.is_anomalous
    row, column = np.unravel_index(after.anomaly_map.argmax(), (32, 32))
    assert row > 16
    assert column < 16


@pytest.mark.parametrize("score", ["nearest", "mahalanobis", "patchcore"])
@pytest.mark.parametrize("distance", ["squared_l2", "l2"])
def test_every_score(score: str, distance: str) -> None:
    model = estimator(score=score, distance=distance).fit(pictures())
    assert np.isfinite(model.threshold_)
    assert np.isfinite(model.predict(pictures(2, seed=5)).score).all()


def test_filters_can_be_switched_off() -> None:
    x = shared_patches(6, 9, 8)
    sizes = [
        len(
            InReaCh("channels", image_size=9, span_filter=span, spread_filter=spread, assoc_depth=2)
            .fit_descriptors(x, (3, 3))
            .nominal_
        )
        for span, spread in ((True, True), (True, False), (False, False))
    ]
    assert sizes[0] <= sizes[1] <= sizes[2]
    assert sizes[0] < sizes[2]


def test_positions_follow_the_transpose_test() -> None:
    upright = estimator(position="auto", transpose_threshold=1.0).fit(pictures())
    assert upright.positions_
    assert upright.nominal_.patches.shape[1] == 26
    assert upright.transpose_score_ > 1
    h, w = upright.grid_
    row, column = np.divmod(upright.nominal_.patch_index, w)
    assert np.allclose(upright.nominal_.patches[:, 24], 5 * row / h)
    assert np.allclose(upright.nominal_.patches[:, 25], 5 * column / w)
    assert not estimator(position="auto", transpose_threshold=1e6).fit(pictures()).positions_
    assert not estimator(position="never", transpose_threshold=1.0).fit(pictures()).positions_
    assert estimator(position="always", transpose_threshold=1e6).fit(pictures()).positions_


def test_oblong_and_cropped_inputs() -> None:
    model = estimator(image_size=(32, 48)).fit(pictures())
    assert model.grid_ == (8, 12)
    assert model.predict(pictures(1)[0]).anomaly_map.shape == (32, 48)
    paper = estimator(preset="paper", resize=40).fit(pictures())
    assert paper.geometry.crop == (32, 32)
    one = paper.predict(pictures(1)[0])
    full = paper.map_to_original(one.anomaly_map, one.original_size)
    assert full.shape == (40, 36)
    assert np.isnan(full[0]).all()


def turned_pictures() -> list[Pixels]:
    base = np.asarray(Image.fromarray(pictures(1)[0]).resize((64, 64)))
    base = base // 4
    base[:32] += 150  # consistent positions once aligned
    images = [np.asarray(Image.fromarray(base).rotate(90 * (i % 4))) for i in range(12)]
    random = np.random.default_rng(0)
    return [np.clip(i + random.normal(0, 1 + k, i.shape), 0, 255).astype(np.uint8) for k, i in enumerate(images)]


def test_alignment_is_found_saved_and_applied(tmp_path: Path) -> None:
    images = turned_pictures()
    model = estimator(align="auto", transpose_threshold=600).fit(images)
    assert model.rotations_ is not None
    assert model.positions_
    assert len(set(np.round(model.rotations_ / 90) % 4)) == 4
    one = model.predict(images[1])
    assert one.rotation != 0
    assert one.anomaly_map.shape == (32, 32)
    model.save(tmp_path / "m")
    loaded = InReaCh.load(tmp_path / "m", backbone=tiny_backbone())
    assert loaded.predict(images[1]).anomaly_map.tobytes() == one.anomaly_map.tobytes()
    assert np.array_equal(loaded.rotations_, model.rotations_)
    assert estimator(align="never").fit(images).rotations_ is None


def test_training_scores_of_few_and_of_all() -> None:
    images = pictures(12)
    model = estimator(threshold_images=4).fit(images)
    scores = model.training_scores()
    assert scores.shape == (12,)
    assert np.array_equal(scores, model.training_scores(images))
    assert np.array_equal(scores[model.threshold_images_], model.threshold_scores_)
    assert np.array_equal(scores, estimator(threshold_images=64).fit(images).training_scores())
    with pytest.raises(ParameterError, match="12 images"):
        model.training_scores(images[:5])

    x = shared_patches(8, 16, 12)
    model = InReaCh("channels", image_size=16, threshold_images=3).fit_descriptors(x, (4, 4))
    assert np.array_equal(model.training_scores(), model.training_scores(x))
    del x
    gc.collect()
    with pytest.raises(ParameterError, match="descriptors"):
        model.training_scores()


def test_progress_and_report() -> None:
    told: list[tuple[str, int, int]] = []
    model = estimator().fit(pictures(), progress=lambda *step: told.append(step))
    assert list(dict.fromkeys(s for s, _, _ in told)) == [
        "read", "describe", "associate", "filter", "index", "threshold",
    ]  # fmt: skip
    assert ("index", 0, 1) in told  # a stage of minutes is told when it begins
    assert all(done <= total for _, done, total in told)
    report = model.report_
    assert report["images"] == 10
    assert report["patches"] == 640
    assert report["nominal"] == len(model.nominal_)
    living = report["channels_formed"] - report["channels_too_short"] - report["channels_spread_out"]
    assert living == report["channels_living"]
    assert json.dumps(report.as_dict())


# ---------------------------------------------------------------------------------------------- bad input


def test_not_fitted() -> None:
    for call in (
        lambda: InReaCh("channels").predict(pictures(1)[0]),
        lambda: InReaCh("channels").save("m"),
        lambda: InReaCh("channels").training_scores(),
        lambda: InReaCh("channels").score_descriptors(np.zeros((1, 1), np.float32)),
    ):
        with pytest.raises(NotFittedError):
            call()


def test_an_attribute_of_the_fit_says_what_it_needs() -> None:
    for name in ("nominal_", "threshold_", "report_"):
        with pytest.raises(NotFittedError, match=f"{name} is there after fit"):
            getattr(InReaCh("channels"), name)
        assert not hasattr(InReaCh("channels"), name)
    with pytest.raises(AttributeError, match="absent_"):
        estimator().fit(pictures(6)).absent_  # noqa: B018


def test_an_attribute_error_within_a_property_is_told_as_it_is() -> None:
    model = InReaCh()
    model.__dict__["_network"] = object()
    with pytest.raises(AttributeError, match="'object' object has no attribute 'get'"):
        _ = model.backbone
    with pytest.raises(AttributeError, match="'InReaCh' object has no attribute 'misspelt'"):
        _ = model.misspelt  # type: ignore[attr-defined]


def test_bad_training_images(tmp_path: Path) -> None:
    with pytest.raises(EmptyFolderError, match=str(tmp_path)):
        estimator().fit(tmp_path)
    with pytest.raises(TooFewImagesError, match="1 usable"):
        estimator().fit(pictures(1))
    with pytest.raises(DegenerateDataError, match="identical"):
        estimator().fit(pictures(1) * 5)
    with pytest.raises(MixedSizesError, match="dtypes"):
        estimator().fit([pictures(1)[0], pictures(1)[0].astype(np.uint16)])
    with pytest.raises(NoChannelsError, match="span filter"):
        estimator(min_channel_length=99).fit(pictures())


def test_a_broken_image_is_named_or_passed_over(tmp_path: Path) -> None:
    for i, image in enumerate(pictures(9)):
        Image.fromarray(image).save(tmp_path / f"{i}.png")
    (tmp_path / "4.png").write_bytes((tmp_path / "4.png").read_bytes()[:300])
    with pytest.raises(ImageError, match=r"4\.png"):
        estimator().fit(tmp_path)
    model = estimator().fit(tmp_path, skip_bad=True)
    assert model.report_["skipped"] == 1
    assert model.report_["skipped_names"] == ["4.png"]
    assert model.n_images_ == 8
    assert model.image_names_ == [f"{i}.png" for i in range(9) if i != 4]
    assert np.array_equal(model.training_scores(tmp_path), model.training_scores())
    with pytest.raises(ImageError, match=r"4\.png"):
        model.predict(tmp_path / "4.png")
    for i in range(1, 9):
        (tmp_path / f"{i}.png").write_bytes(b"no image")
    with pytest.raises(TooFewImagesError):
        estimator().fit(tmp_path, skip_bad=True)


def test_bad_descriptors() -> None:
    x = shared_patches(4, 6, 3)
    with pytest.raises(ParameterError, match="grid"):
        InReaCh("channels").fit_descriptors(x, (2, 2))
    with pytest.raises(MixedSizesError):
        InReaCh("channels").fit_descriptors([x[0], x[1, :3]], (2, 3))
    with pytest.raises(TooFewImagesError):
        InReaCh("channels").fit_descriptors(x[:1], (2, 3))
    with pytest.raises(DegenerateDataError):
        InReaCh("channels").fit_descriptors(np.repeat(x[:1], 4, axis=0), (2, 3))
    model = InReaCh("channels", image_size=12, min_channel_length=1).fit_descriptors(x, (2, 3))
    with pytest.raises(MixedSizesError):
        model.score_descriptors(x[:, :5])
    with pytest.raises(BackboneMismatchError, match="score_descriptors"):
        model.predict(pictures(1)[0])
    x[2, 3, 1] = np.inf
    with pytest.raises(NonFiniteError, match="image 2, patch 3"):
        InReaCh("channels").fit_descriptors(x, (2, 3))
    with pytest.raises(NonFiniteError, match="image 0, patch 3"):
        model.score_descriptors(x[2])


def test_a_network_that_gives_nan() -> None:
    backbone = tiny_backbone()
    with torch.no_grad():
        next(iter(backbone._network.parameters())).fill_(float("nan"))
    with pytest.raises(NonFiniteError, match="weights"):
        estimator(backbone=backbone).fit(pictures())


def test_a_failed_fit_leaves_the_old_one() -> None:
    model = estimator().fit(pictures())
    patches = model.nominal_.patches
    with pytest.raises(DegenerateDataError):
        model.fit(pictures(1) * 3)
    assert model.nominal_.patches is patches
    assert model.predict(pictures(1)[0]).score >= 0


# ------------------------------------------------------------------------------------------- save and load


def test_saved_and_loaded_predict_the_same_bits(fitted: InReaCh, tmp_path: Path) -> None:
    fitted.save(tmp_path / "model")
    loaded = InReaCh.load(tmp_path / "model", backbone=tiny_backbone())
    assert same_model(loaded, fitted)
    assert loaded.parameters == fitted.parameters
    assert loaded.report_.counts == fitted.report_.counts
    image = pictures(1, seed=9)[0]
    assert loaded.predict(image).anomaly_map.tobytes() == fitted.predict(image).anomaly_map.tobytes()
    assert np.array_equal(loaded.training_scores(pictures()), fitted.training_scores())
    assert os.listdir(tmp_path) == ["model"]


def test_the_same_fit_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        estimator().fit(pictures()).save(tmp_path / name)
    InReaCh.load(tmp_path / "a", backbone=tiny_backbone()).save(tmp_path / "c")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes() == (tmp_path / "c").read_bytes()


def test_another_backbone_is_refused(fitted: InReaCh, tmp_path: Path) -> None:
    fitted.save(tmp_path / "model")
    with pytest.raises(BackboneMismatchError, match="tiny"):
        InReaCh.load(tmp_path / "model", backbone=tiny_backbone(seed=1))


FACTORY = """
import torch
from inreach_fast.backbones import BackboneDefinition, Normalisation

def build():
    torch.manual_seed({seed})
    layer = torch.nn.Sequential(torch.nn.Conv2d(3, 16, 4, stride=4), torch.nn.ReLU())
    return BackboneDefinition(torch.nn.Sequential(layer), ("0",), Normalisation((0, 0, 0), (1, 1, 1)), "mine")
"""


def test_a_factory_that_moved_is_given_again(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    first, second, other = tmp_path / "here" / "net.py", tmp_path / "net.py", tmp_path / "other.py"
    first.write_text(FACTORY.format(seed=0))
    model = estimator(backbone=f"{first}:build").fit(pictures())
    model.save(tmp_path / "m")
    score = model.predict(pictures(1)[0]).score
    assert InReaCh.load(tmp_path / "m").predict(pictures(1)[0]).score == score
    first.rename(second)
    with pytest.raises(BackboneError, match="there is no file"):
        InReaCh.load(tmp_path / "m").predict(pictures(1)[0])
    again = InReaCh.load(tmp_path / "m", backbone=f"{second}:build", backend="torch", device="cpu")
    assert again.parameters.backend == "torch"
    assert again.predict(pictures(1)[0]).score == score
    other.write_text(FACTORY.format(seed=1))
    with pytest.raises(BackboneMismatchError, match="fingerprint"):
        InReaCh.load(tmp_path / "m", backbone=f"{other}:build").predict(pictures(1)[0])
    with pytest.raises(ParameterError, match="backbone"):
        InReaCh.load(tmp_path / "m", backbone=5)  # type: ignore[arg-type]


def test_weights_that_moved_are_found_beside_the_model_or_given(tmp_path: Path) -> None:
    import safetensors.torch

    factory, weights = tmp_path / "net.py", tmp_path / "a" / "w.safetensors"
    factory.write_text(FACTORY.format(seed=0))
    weights.parent.mkdir()
    state = {"0.0.weight": torch.randn(16, 3, 4, 4), "0.0.bias": torch.zeros(16)}
    safetensors.torch.save_file(state, str(weights))
    model = estimator(backbone=f"{factory}:build", weights=str(weights)).fit(pictures())
    (tmp_path / "b").mkdir()
    model.save(tmp_path / "b" / "m")
    score = model.predict(pictures(1)[0]).score
    weights.rename(tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match="weights=PATH"):
        InReaCh.load(tmp_path / "b" / "m").predict(pictures(1)[0])
    given = InReaCh.load(tmp_path / "b" / "m", weights=tmp_path / "w.safetensors")
    assert given.predict(pictures(1)[0]).score == score
    (tmp_path / "w.safetensors").rename(tmp_path / "b" / "w.safetensors")
    assert InReaCh.load(tmp_path / "b" / "m").predict(pictures(1)[0]).score == score


def test_a_model_of_descriptors_needs_no_backbone(tmp_path: Path) -> None:
    x = shared_patches(8, 16, 12)
    model = InReaCh("channels", image_size=16).fit_descriptors(x, (4, 4))
    model.save(tmp_path / "model")
    loaded = InReaCh.load(tmp_path / "model")
    assert loaded.score_descriptors(x[0]).score == model.score_descriptors(x[0]).score


def test_a_file_with_parts_missing(tmp_path: Path) -> None:
    from inreach_fast.storage import model_file

    model_file.save_file(tmp_path / "model", {"kind": "InReaCh"}, {})
    with pytest.raises(ModelCorruptError, match="model"):
        InReaCh.load(tmp_path / "model")


# -------------------------------------------------------------------------------------------------- memory


def traced_peak(x: NDArray[np.float32]) -> tuple[int, int]:
    """Bytes that fitting x takes at its peak, and those of the nominal patches."""
    model = InReaCh("channels", image_size=20, assoc_depth=2, min_channel_length=5)
    tracemalloc.start()
    model.fit_descriptors(x, (20, 20))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert not np.shares_memory(model.nominal_.patches, x)
    return peak, model.nominal_.patches.nbytes


def test_fit_descriptors_reads_the_callers_array_in_place() -> None:
    x = shared_patches(30, 400, 128, spread=0.5)
    before = x.copy()
    small, small_nominal = traced_peak(x[:10])
    large, large_nominal = traced_peak(x)
    assert np.array_equal(x, before)
    # Beyond the nominal patches, twenty images more cost a fraction of their descriptors.
    assert large - small < large_nominal - small_nominal + 0.25 * x[10:].nbytes
