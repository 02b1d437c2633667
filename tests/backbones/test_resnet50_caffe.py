"""bench/backbones/resnet50_caffe.py: the checks that come with the weights. Skipped where they are absent."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from inreach_fast.backbones import Backbone, load_backbone, prepare_input
from inreach_fast.errors import WeightsError
from inreach_fast.images.preprocess import Geometry
from inreach_fast.images.reading import to_rgb8

FACTORY = Path(__file__).resolve().parents[2] / "bench" / "backbones" / "resnet50_caffe.py"
_spec = importlib.util.spec_from_file_location("resnet50_caffe", FACTORY)
assert _spec is not None
assert _spec.loader is not None
resnet50_caffe = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(resnet50_caffe)

needs_weights = pytest.mark.skipif(not resnet50_caffe.weights_file().is_file(), reason="the weights are not here")


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return load_backbone(f"{FACTORY}:build")


@pytest.fixture(scope="module")
def photographs() -> np.ndarray:
    from skimage import data

    images = [getattr(data, name)() for name in ("astronaut", "chelsea", "coffee", "rocket", "camera", "brick")]
    return np.stack([Geometry().apply(to_rgb8(image)) for image in images])


@needs_weights
def test_shapes_are_wide_resnets(backbone: Backbone) -> None:
    shapes = backbone.level_shapes(224, 224)
    assert shapes == [(256, 56, 56)] * 3 + [(512, 28, 28)] * 4 + [(1024, 14, 14)] * 6
    assert backbone.name == "resnet50_caffe"


@needs_weights
def test_share_of_positive_activations(backbone: Backbone, photographs: np.ndarray) -> None:
    for name, level in zip(backbone.levels, backbone.extract(photographs), strict=True):
        share = float((level > 0).float().mean())
        assert 0.36 <= share <= 0.78, (name, share)


@needs_weights
def test_channel_means_match_the_batch_norms(backbone: Backbone, photographs: np.ndarray) -> None:
    """What reaches each BatchNorm has the means that training stored, if input, strides and pooling are right."""
    correlations = []

    def compare(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        means = inputs[0].mean((0, 2, 3))
        correlations.append(float(torch.corrcoef(torch.stack([means, module.running_mean]))[0, 1]))

    norms = [m for m in backbone._network.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    handles = [m.register_forward_pre_hook(compare) for m in norms]
    with torch.inference_mode():
        backbone._network(prepare_input(photographs, backbone.normalisation))
    for handle in handles:
        handle.remove()
    assert len(correlations) == len(norms) == 43
    assert float(np.median(correlations)) > 0.9


def test_absent_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(resnet50_caffe.VARIABLE, str(tmp_path / "no.safetensors"))
    with pytest.raises(WeightsError, match=r"no\.safetensors"):
        load_backbone(f"{FACTORY}:build")
