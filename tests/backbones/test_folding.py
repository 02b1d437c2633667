"""BatchNorms folded into convolutions: the same features to 1e-5, nothing of the network changed, the bits repeated."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from small_networks import fill_norms, normed_backbone
from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from inreach_fast.backbones import Backbone, fused_convolution, load_backbone
from inreach_fast.backbones.exported_network import largest_difference
from inreach_fast.backbones.fused_convolution import FusedConvolution, folded_weights
from inreach_fast.errors import BackboneError, ParameterError, RuntimeUnavailableError
from inreach_fast.kernels.convolution import winograd_tile
from inreach_fast.system.threads import torch_team

SIZE = (32, 24)
BATCH = np.random.default_rng(0).integers(0, 256, (2, *SIZE, 3), dtype=np.uint8)


def resnet(block: type[nn.Module], levels: list[str]) -> Backbone:
    torch.manual_seed(1)
    return Backbone.from_module(fill_norms(ResNet(block, [2, 1, 1, 1], width_per_group=64)), levels)


def lite() -> Backbone:
    backbone = load_backbone("efficientnet_lite2", weights="random", depth=5)
    fill_norms(backbone._network)
    return backbone


BACKBONES = {
    "bottleneck": lambda: resnet(Bottleneck, ["layer1.0", "layer1.1", "layer3.0"]),
    "basic": lambda: resnet(BasicBlock, ["layer1.0", "layer2.0"]),
    "hooks": lambda: resnet(BasicBlock, ["layer1.0.bn1", "layer1.0.relu", "layer2"]),
    "lite": lite,
    "normed": normed_backbone,
}


def modules(backbone: Backbone, kind: type[nn.Module]) -> list[nn.Module]:
    return [module for module in backbone._network.modules() if isinstance(module, kind)]


def bits(backbone: Backbone, batch: np.ndarray = BATCH) -> list[bytes]:
    return [level.numpy().tobytes() for level in backbone.extract(batch)]


@pytest.mark.parametrize("name", BACKBONES)
def test_features_are_those_of_the_network(name: str) -> None:
    plain = BACKBONES[name]()
    before = bits(plain)
    folded = plain.with_runtime("torch", SIZE)
    assert folded.runtime == "torch"
    assert not modules(folded, nn.BatchNorm2d)
    found = folded.extract(BATCH)
    assert 0.0 < largest_difference(found, plain.extract(BATCH)) < 1e-5
    assert all(level.is_contiguous(memory_format=torch.channels_last) for level in found)
    assert bits(folded) == bits(folded)
    assert [level[1:].numpy().tobytes() for level in found] == bits(folded, BATCH[1:])
    assert (folded.fingerprint, folded.levels, folded.spec) == (plain.fingerprint, plain.levels, plain.spec)
    # The network itself is as it was.
    assert plain.runtime == "torch-unfolded"
    assert bits(plain) == before


def test_everything_that_follows_a_convolution_of_a_residual_block_is_done_with_it() -> None:
    folded = BACKBONES["bottleneck"]().with_runtime("torch", SIZE)
    # 3 convolutions in each of 4 blocks, 3 shortcuts and the stem; only these are not followed by their own ReLU.
    fused = modules(folded, FusedConvolution)
    assert sorted(module.activation for module in fused) == [""] * 3 + ["relu"] * 13
    assert {node.op for node in folded._network.graph.nodes} == {"placeholder", "call_module", "output"}
    assert not modules(folded, nn.ReLU)
    hooked = BACKBONES["hooks"]().with_runtime("torch", SIZE)
    assert [module.activation for module in modules(hooked, FusedConvolution)].count("") > 0  # a level before its ReLU


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("affine", [False, True])
def test_weights_are_folded_in_float64(bias: bool, affine: bool) -> None:
    torch.manual_seed(2)
    conv, norm = nn.Conv2d(3, 5, 3, bias=bias), nn.BatchNorm2d(5, affine=affine, eps=1e-3)
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.1, 3)
    if affine:
        norm.weight.data.normal_()
        norm.bias.data.normal_()
    weight, offset = folded_weights(conv, norm)
    double = {
        k: v.detach().double().numpy()
        for k, v in {**conv.state_dict(), **{f"n.{k}": v for k, v in norm.state_dict().items()}}.items()
    }
    scale = double.get("n.weight", 1.0) / np.sqrt(double["n.running_var"] + 1e-3)
    shift = (double.get("bias", 0.0) - double["n.running_mean"]) * scale + double.get("n.bias", 0.0)
    np.testing.assert_allclose(weight.numpy(), double["weight"] * scale[:, None, None, None], rtol=1e-7)
    np.testing.assert_allclose(offset.numpy(), shift, rtol=1e-7)
    assert weight.dtype == offset.dtype == torch.float32


def test_another_process_gets_the_same_bits() -> None:
    for name in ("normed", "lite"):
        folded = BACKBONES[name]().with_runtime("torch", SIZE)
        fresh = pickle.loads(pickle.dumps(folded))
        expected = bits(folded)  # the weights are in oneDNN's layout now
        assert bits(fresh) == expected
        assert bits(pickle.loads(pickle.dumps(folded))) == expected


def test_half_precision_of_a_folded_network() -> None:
    folded = normed_backbone().with_runtime("torch", SIZE)
    full = folded.extract(BATCH)
    half = folded.extract(BATCH, precision="bfloat16")
    assert 1e-4 < largest_difference(half, full) < 3e-2


def test_levels_survive_operations_in_place() -> None:
    class InPlace(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm, self.relu = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True)
            self.last = nn.Conv2d(4, 4, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.norm(self.conv(x))
            z = self.relu(y)
            z += 100
            return self.last(z)

    torch.manual_seed(0)
    plain = Backbone.from_module(fill_norms(InPlace()), ["norm", "relu", "last"])
    folded = plain.with_runtime("torch", SIZE)
    assert modules(folded, FusedConvolution)
    assert largest_difference(folded.extract(BATCH), plain.extract(BATCH)) < 1e-5


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(self.conv(x))
        return y if float(y.sum()) > 0 else -y


class Broadcasting(nn.Module):
    """A sum of two shapes, which a convolution cannot take over."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.one, self.norm_of_one = (
            nn.Conv2d(3, 4, 3),
            nn.BatchNorm2d(4),
            nn.Conv2d(3, 4, 1),
            nn.BatchNorm2d(4),
        )
        self.end = nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.end(self.norm(self.conv(x)) + self.norm_of_one(self.one(x.mean((2, 3), keepdim=True))))


@pytest.mark.parametrize(
    ("module", "level"),
    [(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), "1"), (Branching(), "norm"), (Broadcasting(), "end")],
)
def test_a_network_that_cannot_be_folded_runs_as_it_is(module: nn.Module, level: str) -> None:
    plain = Backbone.from_module(fill_norms(module), [level])
    folded = plain.with_runtime("torch", SIZE)
    assert folded.runtime == "torch"
    assert bits(folded) == bits(plain)


def test_bad_runtimes() -> None:
    plain = normed_backbone()
    assert plain.with_runtime("torch-unfolded") is plain
    with pytest.raises(ParameterError, match=r'backbone_runtime: expected "auto" or one of .*onnxruntime.*, got'):
        plain.with_runtime("tensorrt")
    folded = plain.with_runtime("torch")
    assert folded.with_runtime("torch") is folded
    with pytest.raises(ParameterError, match="given with the runtime 'torch', not 'openvino'"):
        folded.with_runtime("openvino")
    plain.device = torch.device("cuda")
    with pytest.raises(RuntimeUnavailableError, match="openvino computes on the CPU, not on cuda; choose"):
        plain.with_runtime("openvino")
    assert issubclass(RuntimeUnavailableError, BackboneError)


@pytest.mark.skipif(fused_convolution._ONEDNN is None, reason="torch was built without oneDNN")
def test_each_number_of_threads_has_a_layout_of_its_own() -> None:
    conv = FusedConvolution(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8).eval())
    x = torch.randn(1, 8, 16, 16).contiguous(memory_format=torch.channels_last)
    before, seen = torch.get_num_threads(), set()
    try:
        for threads in (1, 2, 1):
            torch.set_num_threads(threads)
            seen.add(torch.get_num_threads())
            with torch.inference_mode():
                conv(x)
            assert conv._laid_out.keys() == seen
    finally:
        torch.set_num_threads(before)
    assert copy.deepcopy(conv)._laid_out == {}


def fused_3x3(inputs: int = 20, outputs: int = 24, **options: Any) -> FusedConvolution:
    torch.manual_seed(5)
    sequence = nn.Sequential(nn.Conv2d(inputs, outputs, 3, **{"padding": 1, **options}), nn.BatchNorm2d(outputs))
    conv, norm = fill_norms(sequence)
    return FusedConvolution(conv, norm)


needs_winograd = pytest.mark.skipif(winograd_tile(20, 20, 20, 20) == 0, reason="no vector instructions here")


@needs_winograd
@pytest.mark.parametrize(
    ("size", "padding", "activation", "summed"),
    [
        ((24, 40), 1, "relu", True),
        ((24, 40), 0, "", False),
        ((11, 9), 1, "relu6", False),
        ((11, 9), (2, 1), "relu6", True),
        ((30, 17), 0, "", True),
    ],
)
def test_3x3_by_winograd(size: tuple[int, int], padding: Any, activation: str, summed: bool) -> None:
    conv = fused_3x3(padding=padding)
    conv.activation = activation
    x = 3 * torch.randn(2, 20, *size).contiguous(memory_format=torch.channels_last)
    other = torch.randn_like(conv.by_torch(x, None, conv.weight)) if summed else None
    with torch.inference_mode():
        y = conv(x, other)
        wanted = conv.by_torch(x, other, conv.weight)
        assert conv._by_tile
        assert y.is_contiguous(memory_format=torch.channels_last)
        assert largest_difference([y], [wanted]) < 1e-5
        # Neither the layout nor the batch changes a bit.
        assert torch.equal(conv(x.contiguous(), None if other is None else other.contiguous()), y)
        assert torch.equal(conv(x[1:], None if other is None else other[1:]), y[1:])
        conv.winograd = False
        assert largest_difference([conv(x, other)], [wanted]) < 1e-5
        assert not torch.equal(conv(x, other), y)


@needs_winograd
@pytest.mark.parametrize(
    "options", [{"stride": 2}, {"dilation": 2}, {"groups": 2}, {"kernel_size": 5}, {"inputs": 8}, {"outputs": 8}]
)
def test_other_convolutions_are_left_to_onednn(options: dict[str, Any]) -> None:
    torch.manual_seed(5)
    sizes = {"in": options.pop("inputs", 20), "out": options.pop("outputs", 20)}
    settings = {"kernel_size": 3, "padding": 1, **options}
    conv, norm = fill_norms(
        nn.Sequential(nn.Conv2d(sizes["in"], sizes["out"], **settings), nn.BatchNorm2d(sizes["out"]))
    )
    fused = FusedConvolution(conv, norm)
    x = torch.randn(1, sizes["in"], 24, 40).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        assert largest_difference([fused(x)], [fused.by_torch(x, None, fused.weight)]) < 1e-5
    assert not fused._by_tile


@needs_winograd
def test_winograd_is_for_plain_float32_alone() -> None:
    conv, x = fused_3x3(), torch.randn(1, 20, 24, 24)
    conv.plain = True
    conv(x)
    conv.plain = False
    with torch.autocast("cpu", dtype=torch.bfloat16):
        conv(x)
    conv.double()(x.double())
    conv.float()
    y = x.clone().requires_grad_()
    conv.by_torch(y, None, conv.weight).sum().backward()
    assert not conv._by_tile
    with pytest.raises(RuntimeError):  # as torch says it
        conv(x[:, :10])


@needs_winograd
def test_winograd_gives_the_same_bits_for_any_number_of_threads_of_any_library() -> None:
    conv, x = fused_3x3(64, 130), torch.randn(1, 64, 33, 21)
    before, seen = torch.get_num_threads(), set()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            for team in {torch_team(), 0}:
                with pytest.MonkeyPatch.context() as patch, torch.inference_mode():
                    patch.setattr(fused_convolution, "torch_team", lambda team=team: team)
                    seen.add(conv(x).numpy().tobytes())
    finally:
        torch.set_num_threads(before)
    assert len(seen) == 1
    fresh = pickle.loads(pickle.dumps(conv))
    assert not fresh._by_tile
    with torch.inference_mode():
        assert fresh(x).numpy().tobytes() in seen
