"""Models whose network multiplies 8-bit integers: calibrated in the fit, kept, and never taken for another."""

from __future__ import annotations

import copy
import hashlib
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_networks import Small, normed_backbone, small_images, unfitted

from inreach_fast import InReaCh
from inreach_fast.backbones import Backbone, choosing
from inreach_fast.errors import (
    BackboneMismatchError,
    ImageError,
    ParameterError,
    RuntimeUnavailableError,
    TooFewImagesError,
)
from inreach_fast.fit.calibration import CALIBRATION_IMAGES, calibration_inputs
from inreach_fast.fit.image_job import BackboneSource
from inreach_fast.images.source import open_images

IMAGES = [np.random.default_rng(i).integers(0, 255, (32, 32, 3), dtype=np.uint8) for i in range(3)]


def int8(**parameters: Any) -> InReaCh:
    return unfitted(normed_backbone(), quantization="int8", **parameters)


def ranges(model: InReaCh) -> Any:
    return model.backbone.spec["int8"]


@pytest.fixture(scope="module")
def model() -> InReaCh:
    return int8().fit(small_images())


def scores(model: InReaCh) -> list[float]:
    return [model.predict(image).score for image in IMAGES]


def test_a_fit_calibrates_on_its_images(model: InReaCh) -> None:
    assert model.backbone.is_quantized
    plain = unfitted(normed_backbone()).fit(small_images())
    assert scores(model) != scores(plain)
    np.testing.assert_allclose(scores(model), scores(plain), rtol=0.2)
    inputs = np.stack([model.geometry.apply(image, "") for image in small_images()])
    assert normed_backbone().quantized(inputs).fingerprint == model.backbone.fingerprint


def test_a_model_file_keeps_the_ranges(model: InReaCh, tmp_path: Path) -> None:
    model.save(tmp_path / "m")
    again = InReaCh.load(tmp_path / "m", backbone=normed_backbone())
    assert again.parameters.quantization == "int8"
    assert ranges(again) == ranges(model)
    assert scores(again) == scores(model)
    again.save(tmp_path / "twice")
    assert (tmp_path / "twice").read_bytes() == (tmp_path / "m").read_bytes()
    quantized = normed_backbone().with_ranges(ranges(model))
    assert scores(InReaCh.load(tmp_path / "m", backbone=quantized)) == scores(model)
    with pytest.raises(BackboneMismatchError):
        InReaCh.load(tmp_path / "m", backbone=normed_backbone().quantized(np.stack(IMAGES)))


def test_a_factorys_network_is_rebuilt(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        "from small_networks import Normed\nfrom inreach_fast.backbones import IMAGENET, BackboneDefinition\n\n\n"
        'def build():\n    return BackboneDefinition(Normed(), ("first", "second"), IMAGENET, "normed")\n'
    )
    own: Any = f"{tmp_path / 'net.py'}:build"
    model = unfitted(own, quantization="int8").fit(small_images())
    model.save(tmp_path / "m")
    again = InReaCh.load(tmp_path / "m")
    assert scores(again) == scores(pickle.loads(pickle.dumps(model))) == scores(model)
    # Fitted again, it is calibrated again.
    again.fit([image // 2 for image in small_images()])
    assert ranges(again) != ranges(model)
    assert scores(again) != scores(model)
    # In a worker.
    backbone = model.backbone
    source = BackboneSource(dict(backbone.spec), "cpu", backbone.fingerprint, backbone.runtime, (32, 32))
    assert source.load().fingerprint == backbone.fingerprint
    # A network that the caller quantized stays so, whatever the parameters say.
    theirs = unfitted(InReaCh.load(tmp_path / "m")._network._loaded(model.parameters)).fit(small_images())
    theirs.save(tmp_path / "theirs")
    assert InReaCh.load(tmp_path / "theirs").fit(small_images()).backbone.is_quantized


def test_copies_and_growth_keep_the_ranges(model: InReaCh) -> None:
    for twin in (copy.copy(model), copy.deepcopy(model)):
        assert scores(twin) == scores(model)
        twin.partial_fit(IMAGES)
        assert ranges(twin) == ranges(model)
        twin.forget(0, refit=True)
        assert ranges(twin) == ranges(int8().fit([*small_images()[1:], *IMAGES]))
        twin.fit([image // 2 for image in small_images()])
        assert ranges(twin) != ranges(model)
    assert model.backbone.fingerprint == normed_backbone().with_ranges(ranges(model)).fingerprint


def test_neither_order_nor_copies_choose_the_ranges() -> None:
    images = [np.random.default_rng(i).integers(0, 255, (32, 32, 3), dtype=np.uint8) for i in range(40)]
    source, geometry, p = open_images(images), InReaCh(image_size=32).geometry, InReaCh(image_size=32).parameters
    found = calibration_inputs(source, geometry, p, False)
    assert len(found) == CALIBRATION_IMAGES
    digests = sorted(hashlib.sha256(image.tobytes()).digest() for image in images)[:CALIBRATION_IMAGES]
    assert [hashlib.sha256(image.tobytes()).digest() for image in found[::-1]] == digests
    shuffled = [images[i] for i in np.random.default_rng(0).permutation(40)]
    np.testing.assert_array_equal(calibration_inputs(open_images(shuffled + images), geometry, p, False), found)


def test_tiles_are_what_the_network_sees() -> None:
    model = unfitted(normed_backbone(), quantization="int8", tile=(1, 2), tile_overlap=16, min_channel_length=1)
    images = [np.random.default_rng(i).integers(0, 255, (*model.parameters.input_size, 3), np.uint8) for i in range(3)]
    found = calibration_inputs(open_images(images), model.geometry, model.parameters, False)
    assert found.shape == (6, 32, 32, 3)
    pieces = [image[:, left : left + 32].tobytes() for image in images for left in (0, 16)]
    assert sorted(image.tobytes() for image in found) == sorted(pieces)
    assert model.fit(images).backbone.is_quantized


def test_a_float_fit_after_an_int8_fit() -> None:
    model = int8().fit(small_images())
    model.parameters = model.parameters.with_changes(quantization=None)
    assert not model.fit(small_images()).backbone.is_quantized


def test_another_backbone_for_a_saved_model(model: InReaCh, tmp_path: Path) -> None:
    model.save(tmp_path / "m")
    small: Any = Backbone.from_module(Small(), ["first", "second"])
    for wrong in (small, normed_backbone().with_runtime("torch")):
        with pytest.raises(BackboneMismatchError, match="give the backbone of the fit"):
            InReaCh.load(tmp_path / "m", backbone=wrong)


def test_a_fit_that_fails_leaves_the_earlier_model(tmp_path: Path) -> None:
    model = int8().fit(small_images())
    before = scores(model), ranges(model)
    for bad in (small_images()[:1], [small_images()[0] // 2] * 3):
        with pytest.raises(Exception, match="image"):
            model.fit(bad)
        assert (scores(model), ranges(model)) == before


def test_images_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"no image")
    images = [*small_images(), str(tmp_path / "bad.png")]
    with pytest.raises(ImageError, match=r"bad\.png"):
        int8().fit(images)
    assert int8().fit(images, skip_bad=True).backbone.is_quantized
    with pytest.raises(TooFewImagesError, match="none of the training images"):
        int8().fit([tmp_path / "bad.png"] * 3, skip_bad=True)


def test_what_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ParameterError, match="quantization: expected"):
        InReaCh(quantization="int4")
    with pytest.raises(ParameterError, match="quantization: int8 is computed on the CPU"):
        InReaCh(quantization="int8", device="cuda")
    with pytest.raises(ParameterError, match="no convolutions with BatchNorm"):
        unfitted(Backbone.from_module(Small(), ["first", "second"]), quantization="int8").fit(small_images())
    monkeypatch.delenv(choosing.VARIABLE)
    monkeypatch.setattr(choosing, "is_installed", lambda name: False)
    with pytest.raises(RuntimeUnavailableError, match=r"inreach_fast\[openvino\]"):
        int8().fit(small_images())
    assert int8(backbone_runtime="torch").fit(small_images()).fitted_runtime == "torch"
