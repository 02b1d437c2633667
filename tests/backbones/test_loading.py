"""load_backbone: names, weight files, factories, fingerprints, specs, and each way to go wrong."""

from __future__ import annotations

import builtins
import hashlib
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models import wide_resnet50_2

from inreach_fast.backbones import (
    IMAGENET,
    REFERENCE,
    Backbone,
    Normalisation,
    backbone_from_spec,
    load_backbone,
    loading,
    weights,
)
from inreach_fast.errors import BackboneError, ParameterError, WeightsError

BATCH = np.random.default_rng(1).integers(0, 256, (2, 48, 48, 3), dtype=np.uint8)

FACTORY = """
import torch
from torch import nn
from inreach_fast.backbones import BackboneDefinition, Normalisation

def build():
    torch.manual_seed(3)
    module = nn.Sequential(nn.Conv2d(3, 8, 4, stride=4), nn.ReLU(), nn.Conv2d(8, 16, 2, stride=2))
    normalisation = Normalisation((1, 2, 3), (4, 5, 6), scale=1.0, channel_order="BGR")
    return BackboneDefinition(module, ("1", "2"), normalisation, "tiny", {"deep": ("2",)})

def wrong():
    return nn.ReLU()

def broken():
    raise ZeroDivisionError("oh")
"""


@pytest.fixture
def factory(tmp_path: Path) -> str:
    (tmp_path / "mine.py").write_text(FACTORY)
    return f"{tmp_path / 'mine.py'}:build"


def same(one: Backbone, other: Backbone) -> bool:
    pairs = zip(one.extract(BATCH), other.extract(BATCH), strict=True)
    return one.fingerprint == other.fingerprint and all(torch.equal(a, b) for a, b in pairs)


# --- weight files


@pytest.fixture(scope="module")
def small_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """WideResNet50-2's layer1 and layer2 would do; the whole is 250 MB, so the file is cut after layer3."""
    with torch.device("meta"):
        model = wide_resnet50_2(weights=None)
        del model.fc, model.layer4
    path = tmp_path_factory.mktemp("weights") / "wide.pth"
    torch.save(weights.random_state(model, 9), path)
    return path


def test_weights_from_a_file(small_file: Path, tmp_path: Path) -> None:
    backbone = load_backbone(weights=small_file)
    assert same(backbone, load_backbone(weights=str(small_file)))
    assert backbone.spec["weights_sha256"] == hashlib.sha256(small_file.read_bytes()).hexdigest()
    again = backbone_from_spec(json.loads(json.dumps(backbone.spec)))
    assert same(backbone, again)
    assert again.spec == backbone.spec

    moved = tmp_path / "elsewhere.pth"
    moved.write_bytes(small_file.read_bytes())
    assert same(backbone, backbone_from_spec(backbone.spec, weights=moved))
    assert same(backbone, backbone_from_spec({**backbone.spec, "weights": "gone/elsewhere.pth"}, folder=tmp_path))
    with pytest.raises(WeightsError, match=r"not at gone/x\.pth or .*x\.pth; give the file .*weights=PATH"):
        backbone_from_spec({**backbone.spec, "weights": "gone/x.pth"}, folder=tmp_path)
    with moved.open("r+b") as file:
        file.seek(5000)
        file.write(b"xx")
    with pytest.raises(WeightsError, match="sha256"):
        backbone_from_spec(backbone.spec, weights=moved)


def test_a_spec_does_not_tell_where_it_was_made(
    small_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(small_file.parent)
    backbone = load_backbone(weights=small_file.name, depth=1)
    assert str(small_file.parent) not in json.dumps(backbone.spec)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WeightsError, match="weights=PATH"):
        backbone_from_spec(backbone.spec)
    assert same(backbone, backbone_from_spec(backbone.spec, folder=small_file.parent))


def test_safetensors(factory: str, tmp_path: Path) -> None:
    import safetensors.torch

    plain = load_backbone(factory)
    state = {
        k: v + 1 for k, v in nn.Sequential(nn.Conv2d(3, 8, 4), nn.ReLU(), nn.Conv2d(8, 16, 2)).state_dict().items()
    }
    safetensors.torch.save_file(state, tmp_path / "w.safetensors")
    torch.save({"state_dict": {f"module.{k}": v for k, v in state.items()}}, tmp_path / "w.pt")
    loaded = load_backbone(factory, weights=tmp_path / "w.safetensors")
    assert same(loaded, load_backbone(factory, weights=tmp_path / "w.pt"))
    assert loaded.fingerprint != plain.fingerprint


def test_broken_weight_files(factory: str, tmp_path: Path) -> None:
    def refused(path: Path, match: str) -> None:
        with pytest.raises(WeightsError, match=match) as error:
            load_backbone(factory, weights=path)
        assert str(path) in str(error.value)

    refused(tmp_path / "absent.pth", "missing")
    refused(tmp_path, "cannot be read")
    (tmp_path / "junk.pth").write_bytes(b"junk")
    refused(tmp_path / "junk.pth", "not a readable state dict")
    torch.save([1, 2], tmp_path / "list.pth")
    refused(tmp_path / "list.pth", "not a dict of tensors")
    torch.save({"0.weight": torch.zeros(2)}, tmp_path / "shape.pth")
    refused(tmp_path / "shape.pth", "shape")
    torch.save({"0.weight": torch.zeros(8, 3, 4, 4)}, tmp_path / "lacks.pth")
    refused(tmp_path / "lacks.pth", r"lacks '0\.bias'")
    (tmp_path / "net-0123abcd.pth").write_bytes(b"junk")
    refused(tmp_path / "net-0123abcd.pth", "0123abcd")
    (tmp_path / "bad.safetensors").write_bytes(b"junk")
    refused(tmp_path / "bad.safetensors", "not a readable state dict")


class Payload:
    """Touches a file when unpickled."""

    target = ""

    def __reduce__(self) -> tuple:
        return (open, (self.target, "w"))


def test_a_weight_file_is_never_executed(factory: str, tmp_path: Path) -> None:
    Payload.target = str(tmp_path / "executed")
    torch.save({"0.weight": Payload()}, tmp_path / "evil.pth")
    with pytest.raises(WeightsError):
        load_backbone(factory, weights=tmp_path / "evil.pth")
    assert not (tmp_path / "executed").exists()


# --- torch.hub's cache


def test_official_weights_come_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = b"weights"
    name = f"net-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / name).write_bytes(content)
    assert weights.hub_file(f"https://example.invalid/{name}", "net") == tmp_path / "checkpoints" / name


def test_missing_official_weights_say_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise OSError("Name or service not known")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", unreachable)
    with pytest.raises(WeightsError) as error:
        load_backbone()
    message = str(error.value)
    for part in (str(tmp_path), "wide_resnet50_2-95faca4d.pth", "Name or service", "--weights PATH", "[offline]"):
        assert part in message
    assert "\n" not in message


def test_a_damaged_cache_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "wide_resnet50_2-95faca4d.pth").write_bytes(b"cut")
    with pytest.raises(WeightsError, match="95faca4d"):
        load_backbone()


def test_a_download_goes_into_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def download(url: str, path: str, hash_prefix: str, progress: bool) -> None:
        calls.append((url, hash_prefix))
        Path(path).write_bytes(b"x")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "new"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    path = weights.hub_file("https://example.invalid/a/net-01234567.pth", "net")
    assert path.read_bytes() == b"x"
    assert calls == [("https://example.invalid/a/net-01234567.pth", "01234567")]


# --- factories, names


def test_factory(factory: str) -> None:
    backbone = load_backbone(factory)
    assert backbone.name == "tiny"
    assert backbone.levels == ("1", "2")  # depth=13: all there are
    assert backbone.normalisation.channel_order == "BGR"
    assert [tuple(level.shape) for level in backbone.extract(BATCH)] == [(2, 8, 12, 12), (2, 16, 6, 6)]
    assert load_backbone(factory, depth="deep").levels == ("2",)
    assert load_backbone(factory, depth=("0",)).levels == ("0",)
    assert same(backbone, backbone_from_spec(json.loads(json.dumps(backbone.spec))))
    assert load_backbone(factory, weights="random").fingerprint != backbone.fingerprint


def test_a_factory_that_was_changed_at_once_is_read_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To as many bytes and within the same second, which is all that kept bytecode is compared by."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    file = tmp_path / "net.py"
    file.write_text(FACTORY)
    os.utime(file, (1e9, 1e9))
    first = load_backbone(f"{file}:build")
    file.write_text(FACTORY.replace("manual_seed(3)", "manual_seed(4)"))
    os.utime(file, (1e9, 1e9))
    assert load_backbone(f"{file}:build").fingerprint != first.fingerprint
    assert os.listdir(tmp_path) == ["net.py"]


def test_bad_factories(factory: str, tmp_path: Path) -> None:
    file = factory.rpartition(":")[0]
    for name, match in [
        (f"{tmp_path}/no.py:build", "no file"),
        (f"{file}:absent", "no function 'absent'"),
        (f"{file}:wrong", "returned a ReLU"),
        (f"{file}:broken", "ZeroDivisionError: oh"),
    ]:
        with pytest.raises(BackboneError, match=match):
            load_backbone(name)
    (tmp_path / "syntax.py").write_text("def build(:")
    with pytest.raises(BackboneError, match="SyntaxError"):
        load_backbone(f"{tmp_path}/syntax.py:build")


def test_bad_names() -> None:
    for bad in ("resnet", "", "file.txt:build"):
        with pytest.raises(ParameterError, match="backbone"):
            load_backbone(bad)
    with pytest.raises(ParameterError, match="backbone"):
        load_backbone(nn.ReLU())  # type: ignore[arg-type]


def test_normalisations(factory: str) -> None:
    assert load_backbone(factory, normalisation="imagenet").normalisation == IMAGENET
    assert load_backbone(factory, normalisation="reference").normalisation == REFERENCE
    assert Normalisation.from_json(json.loads(json.dumps(REFERENCE.to_json()))) == REFERENCE
    assert load_backbone(factory, normalisation="reference").fingerprint != load_backbone(factory).fingerprint
    with pytest.raises(ParameterError, match="normalisation"):
        load_backbone(factory, normalisation="caffe")
    for mean, std, scale, order in [
        ((0, 0), (1, 1, 1), 1.0, "RGB"),
        ((0, 0, 0), (1, 0, 1), 1.0, "RGB"),
        ((0, 0, float("nan")), (1, 1, 1), 1.0, "RGB"),
        ((0, 0, 0), (1, 1, 1), 0.0, "RGB"),
        ((0, 0, 0), (1, 1, 1), 1.0, "GBR"),
    ]:
        with pytest.raises(ParameterError, match="normalisation"):
            Normalisation(mean, std, scale, order)


def test_specs_that_cannot_be_rebuilt() -> None:
    mine = Backbone.from_module(nn.Sequential(nn.Conv2d(3, 4, 3)), ["0"], name="mine")
    with pytest.raises(BackboneError, match="mine"):
        backbone_from_spec(mine.spec)
    with pytest.raises(BackboneError, match="damaged"):
        backbone_from_spec({"rebuildable": True})


def test_fingerprint_knows_weights_and_levels() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    one = Backbone.from_module(module, ["0"]).fingerprint
    assert Backbone.from_module(module, ["1"]).fingerprint != one
    with torch.no_grad():
        module[0].weight[0, 0, 0, 0] += 1e-3
    assert Backbone.from_module(module, ["0"]).fingerprint != one


# --- timm


def test_timm() -> None:
    timm = pytest.importorskip("timm")
    backbone = load_backbone("timm:resnet18", weights="random", depth=6, seed=2)
    assert backbone.levels == ("layer1.0", "layer1.1", "layer2.0", "layer2.1", "layer3.0", "layer3.1")
    assert same(backbone, load_backbone("timm:resnet18", weights="random", depth=6, seed=2))
    model = timm.create_model("resnet18", pretrained=False)
    assert backbone.normalisation.mean == tuple(model.pretrained_cfg["mean"])
    other = load_backbone("timm:mobilenetv3_small_050", weights="random")
    first = other.extract(BATCH)[0]
    assert first.shape[2:] == (12, 12)
    with pytest.raises(ParameterError, match="no model"):
        load_backbone("timm:nothing_of_the_kind")


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "vit_small_patch14_reg4_dinov2.lvd142m"])
def test_timm_transformers(name: str) -> None:
    pytest.importorskip("timm")
    backbone = load_backbone(f"timm:{name}", weights="random", depth=2)
    (first, second) = backbone.extract(np.zeros((1, 112, 224, 3), np.uint8))
    patch = 16 if "16" in name else 14
    assert first.shape == second.shape == (1, first.shape[1], 112 // patch, 224 // patch)
    with pytest.raises(BackboneError, match=r"failed on an input of 115x115 pixels .*try another image_size"):
        backbone.extract(np.zeros((1, 115, 115, 3), np.uint8))


def test_timm_without_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    timm = pytest.importorskip("timm")

    def unreachable(*_: object, **__: object) -> None:
        raise OSError("offline")

    monkeypatch.setattr(timm, "create_model", unreachable)
    with pytest.raises(WeightsError, match=r"offline.*--weights PATH"):
        load_backbone("timm:resnet18")


def test_timm_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without_timm(name: str, *args: object, **kwargs: object) -> object:
        if name == "timm":
            raise ImportError(name)
        return real(name, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", without_timm)
    with pytest.raises(BackboneError, match="pip install"):
        load_backbone("timm:resnet18")
    assert "inreach_fast" in sys.modules
    assert loading.load_backbone is load_backbone
