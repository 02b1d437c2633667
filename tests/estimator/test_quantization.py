"""Models whose network multiplies 8-bit integers: calibrated in the fit, kept, and never taken for another."""

from __future__ import annotations

import copy
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
from inreach_fast.fit.image_job import BackboneSource

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
        assert ranges(twin) == ranges(model)
        twin.fit([image // 2 for image in small_images()])
        assert ranges(twin) != ranges(model)
    assert model.backbone.fingerprint == normed_backbone().with_ranges(ranges(model)).fingerprint


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
    with pytest.raises(TooFewImagesError, match="none of the images"):
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
