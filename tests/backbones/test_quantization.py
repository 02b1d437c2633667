"""Networks of 8-bit products: the rounding itself, the ranges, what is refused, and OpenVINO's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import fake_runtime
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_networks import Small, normed_backbone
from torch import nn

from inreach_fast.backbones import (
    Backbone,
    backbone_from_spec,
    by_fastest_runtime,
    choosing,
    load_backbone,
    openvino_network,
)
from inreach_fast.backbones.exported_network import largest_difference
from inreach_fast.backbones.fused_convolution import FusedConvolution
from inreach_fast.backbones.openvino_network import OpenVinoNetwork
from inreach_fast.backbones.quantization import QuantizedConvolution, folded_to_quantize, input_ranges
from inreach_fast.errors import BackboneError, DataError, NonFiniteError, ParameterError, RuntimeUnavailableError

IMAGES = np.random.default_rng(0).integers(0, 256, (4, 32, 40, 3), dtype=np.uint8)


def fused(groups: int = 1) -> FusedConvolution:
    torch.manual_seed(1)
    norm = nn.BatchNorm2d(4).eval()
    norm.running_var.data = torch.tensor([0.5, 1.0, 2.0, 1e-30])  # type: ignore[union-attr]
    found = FusedConvolution(nn.Conv2d(2, 4, 3, padding=1, groups=groups), norm)
    found.weight[2] = 0.0
    return found


@given(
    low=st.floats(-1e3, 0, width=32),
    high=st.floats(0, 1e3, width=32),
    groups=st.sampled_from([1, 2]),
    seed=st.integers(0, 2**16),
)
def test_the_rounding(low: float, high: float, groups: int, seed: int) -> None:
    """By hand, in float64: values are multiples of a step, off by at most half of it within the range."""
    mine = fused(groups)
    layer = QuantizedConvolution(mine, low, high)
    span = high - low
    x = torch.from_numpy(np.random.default_rng(seed).uniform(low - 0.1 * span, high + 0.1 * span, (1, 2, 5, 6))).float()
    step = max(span / 255, 1e-30)
    zero = round(-low / step)
    assert 0 <= zero <= 255
    inside = np.clip(x.numpy().astype(np.float64), -zero * step, (255 - zero) * step)
    weight = mine.weight.numpy().astype(np.float64)
    weight_step = np.abs(weight).max(axis=(1, 2, 3), keepdims=True) / 127
    rounded_weight = (
        np.where(weight_step > 0, np.rint(weight / np.where(weight_step > 0, weight_step, 1)), 0) * weight_step
    )
    got = layer(x).numpy()
    assert np.isfinite(got).all()
    middle = mine.by_torch(torch.from_numpy(inside).float(), None, torch.from_numpy(rounded_weight).float()).numpy()
    bound = 0.51 * step * np.abs(rounded_weight).sum(axis=(1, 2, 3))
    # Rounding in float32 may take a weight to the other neighbour where it lies in the middle.
    bound = bound + 1e-5 * (np.abs(rounded_weight).sum(axis=(1, 2, 3)) * max(-low, high, 1e-6)) + 1e-6
    bound = bound + weight_step[:, 0, 0, 0] * 1e-3 * max(-low, high)
    assert (np.abs(got - middle).max(axis=(0, 2, 3)) <= bound).all()


def test_ranges_are_of_all_images_and_contain_zero() -> None:
    network = folded_to_quantize(normed_backbone()._network, "normed")  # type: ignore[arg-type]
    inputs = [torch.full((1, 3, 8, 8), value) for value in (2.0, 3.5)]
    ranges = input_ranges(network, inputs)
    first, second = ranges
    assert ranges[first] == (0.0, 3.5)
    assert ranges[second][0] == 0.0  # after a ReLU
    assert ranges[second][1] == max(float(network.get_submodule(first)(x).max()) for x in inputs)
    assert not any(module._forward_pre_hooks for module in network.modules())


def test_features_are_near_and_the_original_stays_as_it_is() -> None:
    plain = normed_backbone()
    before = [level.clone() for level in plain.extract(IMAGES)]
    mine = plain.quantized(IMAGES)
    assert (mine.is_quantized, plain.is_quantized) == (True, False)
    off = largest_difference(mine.extract(IMAGES), before)
    assert 1e-4 < off < 0.03
    assert largest_difference(plain.extract(IMAGES), before) == 0.0
    assert mine.name == plain.name
    assert "int8" not in plain.spec


def test_the_fingerprint_is_of_weights_and_ranges() -> None:
    plain = normed_backbone()
    mine, again, other = plain.quantized(IMAGES), plain.quantized(IMAGES), plain.quantized(IMAGES // 2)
    assert mine.fingerprint == again.fingerprint
    assert len({plain.fingerprint, mine.fingerprint, other.fingerprint}) == 3
    spec = json.loads(json.dumps(mine.spec))
    assert normed_backbone().with_ranges(spec["int8"]).fingerprint == mine.fingerprint


def test_a_description_builds_it_again(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        "from small_networks import Normed\nfrom inreach_fast.backbones import IMAGENET, BackboneDefinition\n\n\n"
        'def build():\n    return BackboneDefinition(Normed(), ("first", "second"), IMAGENET, "normed")\n'
    )
    mine = load_backbone(f"{tmp_path / 'net.py'}:build").quantized(IMAGES)
    again = backbone_from_spec(json.loads(json.dumps(mine.spec)))
    assert again.fingerprint == mine.fingerprint
    for one, other in zip(mine.extract(IMAGES), again.extract(IMAGES), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    "ranges",
    [None, [], 3, {"x": 1}, {"fused_0": [0, "a"]}, {}, {"fused_0": [-1, 1]}, {"fused_0": [0, 1], "other": [0, 1]}]
    + [{"fused_0": ends, "fused_1": [0, 1]} for ends in ([1, 2], [-2, -1], [0, float("inf")], [float("nan"), 1])],
)
def test_damaged_ranges(ranges: Any) -> None:
    with pytest.raises(BackboneError, match="fit the model again"):
        normed_backbone().with_ranges(ranges)


def test_what_cannot_be_quantized() -> None:
    mine = normed_backbone().quantized(IMAGES)
    with pytest.raises(ParameterError, match="multiplies 8-bit integers already"):
        mine.quantized(IMAGES)
    with pytest.raises(ParameterError, match="no convolutions with BatchNorm"):
        Backbone.from_module(Small(), ["first"]).quantized(IMAGES)
    with pytest.raises(ParameterError, match="given with the runtime 'torch'"):
        normed_backbone().with_runtime("torch").quantized(IMAGES)
    for bad in (IMAGES[:0], IMAGES[0], IMAGES.astype(np.float32)):
        with pytest.raises(DataError, match="images: expected uint8"):
            normed_backbone().quantized(bad)


def test_runtimes(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = normed_backbone().quantized(IMAGES)
    emulated = mine.with_runtime("torch", (32, 40))
    assert (emulated.runtime, emulated.is_quantized) == ("torch", True)
    assert largest_difference(emulated.extract(IMAGES), mine.extract(IMAGES)) == 0.0
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    with pytest.raises(RuntimeUnavailableError, match="int8 is computed by OpenVINO"):
        mine.with_runtime("onnxruntime")


def test_the_fastest_is_openvino_or_none(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = normed_backbone().quantized(IMAGES)
    assert by_fastest_runtime(mine, (32, 40)).runtime == "torch"  # as the tests' environment says
    monkeypatch.delenv(choosing.VARIABLE)
    monkeypatch.setattr(choosing, "is_installed", lambda name: False)
    with pytest.raises(RuntimeUnavailableError, match=r"inreach_fast\[openvino\]"):
        by_fastest_runtime(mine, (32, 40))


def test_auto_is_openvino_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_runtime.use(monkeypatch, tmp_path)
    monkeypatch.delenv(choosing.VARIABLE)
    assert by_fastest_runtime(normed_backbone().quantized(IMAGES), (32, 40)).runtime == "openvino"


def test_a_network_that_is_not_finite_or_refuses_the_size() -> None:
    broken = normed_backbone()
    with torch.no_grad():
        next(broken._network.parameters()).fill_(float("inf"))  # type: ignore[union-attr]
    with pytest.raises(NonFiniteError, match="holds NaN or infinity"):
        broken.quantized(IMAGES)
    with pytest.raises(BackboneError, match="try another image_size"):
        Backbone.from_module(Picky(), ["norm"]).quantized(IMAGES)


class Picky(nn.Module):
    """Takes one size alone."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x: Any) -> Any:
        return self.norm(self.conv(x.reshape(1, 3, 30, 30)))


def test_openvino_multiplies_integers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    openvino = pytest.importorskip("openvino")
    monkeypatch.setenv("INREACH_NETWORK_CACHE", str(tmp_path))
    if "INT8" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this processor has no 8-bit products")
    mine = normed_backbone().quantized(IMAGES)
    by = mine.with_runtime("openvino", (32, 40))
    found = by.extract(IMAGES)
    assert largest_difference(found, mine.extract(IMAGES)) < 0.02
    assert largest_difference(by.extract(IMAGES[1:2]), [level[1:2] for level in found]) == 0.0
    # The graph that runs has convolutions of integers.
    (file,) = tmp_path.rglob("network.xml")
    graph = openvino.Core().compile_model(file, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}).get_runtime_model()
    told = [{name: str(value.value) for name, value in node.get_rt_info().items()} for node in graph.get_ops()]
    types = {node["runtimePrecision"] for node in told if "onvolution" in node.get("layerType", "")}
    assert types & {"u8", "i8"}


def test_a_processor_without_integers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    openvino = pytest.importorskip("openvino")
    monkeypatch.setenv("INREACH_NETWORK_CACHE", str(tmp_path))

    class Core(openvino.Core):  # type: ignore[misc, name-defined]
        def get_property(self, *arguments: Any) -> Any:
            return ["FP32"] if arguments[1:] == ("OPTIMIZATION_CAPABILITIES",) else super().get_property(*arguments)

    monkeypatch.setattr(openvino_network, "_core", Core)
    with pytest.raises(RuntimeUnavailableError, match="no 8-bit products for openvino"):
        normed_backbone().quantized(IMAGES).with_runtime("openvino", (32, 40)).extract(IMAGES[:1])
    assert OpenVinoNetwork.precisions == ("float32", "bfloat16")
