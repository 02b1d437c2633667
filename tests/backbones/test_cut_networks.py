"""The cut networks against the whole ones with hooks: the same levels to the bit, intact, and nothing after them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models import resnet18, wide_resnet50_2

from inreach_fast.backbones import IMAGENET, REFERENCE, Backbone, BackboneDefinition, load_backbone, prepare_input
from inreach_fast.backbones.definition import CutNetwork
from inreach_fast.backbones.hooked_network import HookedNetwork
from inreach_fast.backbones.weights import random_state
from inreach_fast.errors import BackboneError, DataError, GpuError, GpuLostError, GpuMemoryError, ParameterError

BATCH = np.random.default_rng(0).integers(0, 256, (3, 64, 48, 3), dtype=np.uint8)

DEFAULT = tuple(f"layer{s}.{i}" for s, n in ((1, 3), (2, 4), (3, 6)) for i in range(n))


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return load_backbone(weights="random", seed=4)


@pytest.fixture(scope="module")
def whole() -> dict[str, torch.Tensor]:
    """Every block's output in an untouched torchvision network, copied as soon as it is there."""
    model = wide_resnet50_2(weights=None).eval().to(memory_format=torch.channels_last)
    state = random_state(_without_fc(), 4)
    missing = model.load_state_dict(state, strict=False).missing_keys
    assert set(missing) == {"fc.weight", "fc.bias"}
    seen: dict[str, torch.Tensor] = {}
    for stage in ("layer1", "layer2", "layer3", "layer4"):
        for i, block in enumerate(getattr(model, stage)):
            name = f"{stage}.{i}"
            block.register_forward_hook(lambda _m, _i, out, name=name: seen.update({name: out.clone()}))
    with torch.inference_mode():
        model(prepare_input(BATCH, IMAGENET))
    return seen


def _without_fc() -> nn.Module:
    with torch.device("meta"):
        model = wide_resnet50_2(weights=None)
        del model.fc
    return model


def at_once(backbone: Backbone) -> list[torch.Tensor]:
    """The levels of a batch that passes through the network as a whole."""
    with torch.inference_mode():
        return backbone.run(prepare_input(BATCH, backbone.normalisation))


def test_default_levels_are_the_whole_networks(backbone: Backbone, whole: dict[str, torch.Tensor]) -> None:
    assert backbone.levels == DEFAULT
    levels = at_once(backbone)
    for name, level in zip(backbone.levels, levels, strict=True):
        assert level.dtype == torch.float32
        assert level.is_inference()
        assert level.is_contiguous(memory_format=torch.channels_last)
        assert float(level.min()) == 0.0  # after the ReLU
        assert torch.equal(level, whole[name]), name
    assert backbone.level_shapes(64, 48) == [tuple(level.shape[1:]) for level in levels]
    assert [tuple(level.shape[1:]) for level in levels][::4] == [(256, 16, 12), (512, 8, 6), (1024, 4, 3), (1024, 4, 3)]


@pytest.mark.parametrize(
    ("depth", "expected"),
    [
        (1, ("layer1.0",)),
        (5, DEFAULT[:5]),
        ("PC", ("layer2.3", "layer3.5")),
        ("reference", (*(n for n in DEFAULT if n != "layer3.0"), "layer4.0")),
        (("layer4.2", "layer1.1"), ("layer4.2", "layer1.1")),
    ],
)
def test_depth(whole: dict[str, torch.Tensor], depth: object, expected: tuple[str, ...]) -> None:
    backbone = load_backbone(weights="random", seed=4, depth=depth)
    assert backbone.levels == expected
    for name, level in zip(expected, at_once(backbone), strict=True):
        assert torch.equal(level, whole[name]), name


def test_nothing_after_the_last_level_is_kept() -> None:
    backbone = load_backbone(weights="random", depth=4)
    names = [name for name, _ in backbone._network.named_modules()]
    assert "layer2.0" in names
    assert not [n for n in names if n.startswith(("layer2.1", "layer3", "layer4", "fc"))]


def test_levels_are_not_written_to_later(backbone: Backbone) -> None:
    first = backbone.extract(BATCH)
    copies = [level.clone() for level in first]
    backbone.extract(BATCH[::-1])
    assert all(torch.equal(a, b) for a, b in zip(first, copies, strict=True))


@pytest.mark.parametrize("name", ["wide_resnet50_2", "efficientnet_lite2"])
def test_an_images_features_do_not_depend_on_its_batch(name: str) -> None:
    backbone = load_backbone(name, weights="random", depth=8)
    together = backbone.extract(BATCH)
    whole = at_once(backbone)
    assert all(torch.allclose(a, b, rtol=1e-3, atol=1e-3) for a, b in zip(together, whole, strict=True))
    for i in range(len(BATCH)):
        alone = backbone.extract(BATCH[i : i + 1])
        assert all(torch.equal(a[0], b[i]) for a, b in zip(alone, together, strict=True))


@pytest.mark.parametrize("bad", [0, 14, -1, True, 2.0, "XL", (), ("layer1.0", "layer1.0"), ("layer9.0",), None])
def test_bad_depth(bad: object) -> None:
    with pytest.raises(ParameterError, match="depth"):
        load_backbone(weights="random", depth=bad)


def test_bad_batches(backbone: Backbone) -> None:
    for bad in (BATCH[0], BATCH.astype(np.float32), BATCH[..., :2], BATCH[:0]):
        with pytest.raises(DataError, match="batch"):
            backbone.extract(bad)
    with pytest.raises(ParameterError, match="device"):
        load_backbone(weights="random", depth=1, device="nonsense")


def test_seeds(backbone: Backbone) -> None:
    assert load_backbone(weights="random", seed=4).fingerprint == backbone.fingerprint
    assert load_backbone(weights="random", seed=5).fingerprint != backbone.fingerprint


# --- any module, by hooks


class InPlace(nn.Module):
    """Writes to the output of `first` after it was made, and fails if it gets as far as `last`."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3)
        self.second = nn.ReLU(inplace=True)
        self.last = nn.Conv2d(99, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.second(self.first(x))
        y += 100
        return self.last(y)


def test_hooked_levels_survive_in_place_operations() -> None:
    torch.manual_seed(0)
    module = InPlace()
    backbone = Backbone.from_module(module, ["first", "second"], name="mine")
    first, second = at_once(backbone)
    with torch.inference_mode():
        expected = module.first(prepare_input(BATCH, IMAGENET))
    assert torch.equal(first, expected)
    assert torch.equal(second, expected.relu())
    assert not module.first._forward_hooks
    assert backbone.spec["rebuildable"] is False
    assert not module.training


def test_hooks_and_cut_agree() -> None:
    torch.manual_seed(0)
    model = resnet18(weights=None).eval()
    definition = BackboneDefinition(model, ("layer1.1", "layer3.0"), IMAGENET, "r18")
    cut = Backbone(definition, definition.levels)
    assert isinstance(cut._network, CutNetwork)
    hooked = HookedNetwork(model, definition.levels, "r18").eval()
    with torch.inference_mode():
        expected = hooked(prepare_input(BATCH, IMAGENET))
    assert all(torch.equal(a, b) for a, b in zip(at_once(cut), expected, strict=True))
    by_stage = Backbone.from_module(model, ["layer1", "layer2"])  # no block names: hooks
    assert isinstance(by_stage._network, HookedNetwork)
    assert torch.equal(by_stage.extract(BATCH)[0], cut.extract(BATCH)[0])


def test_a_changed_resnet_is_not_cut() -> None:
    class Doubled(type(resnet18(weights=None))):  # type: ignore[misc]
        def _forward_impl(self, x: torch.Tensor) -> torch.Tensor:
            return super()._forward_impl(2 * x)

    model = resnet18(weights=None)
    model.__class__ = Doubled
    assert isinstance(Backbone.from_module(model, ["layer1.0"])._network, HookedNetwork)


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), GpuMemoryError, "memory is full"),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), GpuLostError, "new process"),
        (RuntimeError("CUDA error: operation not permitted when stream is capturing"), GpuError, "capturing"),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), BackboneError, "another image_size"),
    ],
)
def test_a_gpu_that_fails_is_not_the_networks_fault(error: Exception, kind: type[Exception], words: str) -> None:
    class Failing(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise error

    backbone = Backbone.from_module(nn.Sequential(Failing(), nn.Identity()), ["1"])
    with pytest.raises(kind, match=words) as caught:
        backbone.extract(BATCH)
    assert type(caught.value) is kind


def test_a_full_gpu_is_told_when_the_network_is_moved_there(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: nn.Module, *_: object, **__: object) -> nn.Module:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(nn.Module, "to", full)
    with pytest.raises(GpuMemoryError, match="memory is full"):
        Backbone.from_module(InPlace(), ["last"], device="cuda")


def test_bad_modules() -> None:
    with pytest.raises(ParameterError, match="nowhere"):
        Backbone.from_module(InPlace(), ["nowhere"])
    flat = nn.Sequential(nn.Flatten(), nn.Identity())
    with pytest.raises(BackboneError, match="shape"):
        Backbone.from_module(flat, ["0"]).extract(BATCH)
    with pytest.raises(BackboneError, match="failed on an input"):
        Backbone.from_module(InPlace(), ["last"]).extract(BATCH)
    unused = InPlace()
    unused.spare = nn.Identity()
    unused.last = nn.Identity()
    with pytest.raises(BackboneError, match="not reached"):
        Backbone.from_module(unused, ["spare"]).extract(BATCH)


# --- input


def test_prepared_input_is_torchvisions() -> None:
    from torchvision import transforms

    steps = transforms.Compose([transforms.ToTensor(), transforms.Normalize(IMAGENET.mean, IMAGENET.std)])
    expected = torch.stack([steps(image) for image in BATCH])
    got = prepare_input(BATCH, IMAGENET)
    assert got.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)


def test_channel_order_and_scale() -> None:
    steps = BATCH[..., ::-1].astype(np.float64) / 255
    expected = (steps - np.array(REFERENCE.mean)) / np.array(REFERENCE.std)
    got = prepare_input(BATCH, REFERENCE).permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
