"""Networks by other runtimes: the same features to 1e-5; exported once; and each way to go wrong."""

from __future__ import annotations

import errno
import importlib.util
import logging
import os
import pickle
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import fake_runtime
import numpy as np
import pytest
import torch
from fake_runtime import FakeNetwork
from small_networks import fill_norms, normed_backbone
from torch import nn

from inreach_fast.backbones import Backbone, by_fastest_runtime, choosing, load_backbone, network_cache, runtimes
from inreach_fast.backbones.exported_network import largest_difference
from inreach_fast.backbones.onnx_network import OnnxNetwork
from inreach_fast.backbones.openvino_network import OpenVinoNetwork
from inreach_fast.errors import BackboneError, ForkError, ParameterError, RuntimeUnavailableError, SaveError
from inreach_fast.kernels.convolution import _core
from inreach_fast.system import threads

BATCH = np.random.default_rng(0).integers(0, 256, (3, 32, 40, 3), dtype=np.uint8)
REAL = {"openvino": "openvino", "onnxruntime": "onnxruntime"}


def bits(backbone: Backbone, batch: np.ndarray = BATCH) -> list[bytes]:
    return [level.numpy().tobytes() for level in backbone.extract(batch)]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("INREACH_NETWORK_CACHE", str(folder))
    return folder


@pytest.fixture
def fake(cache: Path, monkeypatch: pytest.MonkeyPatch) -> type[FakeNetwork]:
    return fake_runtime.use(monkeypatch, cache)


# --- OpenVINO and ONNX Runtime, where they are installed


@pytest.fixture(params=["openvino", "onnxruntime"])
def real(request: pytest.FixtureRequest, cache: Path) -> str:
    for package in runtimes._PACKAGES[request.param]:
        pytest.importorskip(package)
    return str(request.param)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(12, 36)

    def forward(self, x: Any) -> Any:
        q, k, v = self.qkv(x).chunk(3, dim=2)
        return x + nn.functional.scaled_dot_product_attention(q, k, v)


class Tokens(nn.Module):
    """As a vision transformer of timm is built: tokens of 8x8 pixels after a class token."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.patch_embed = nn.Conv2d(3, 12, 8, stride=8)
        self.patch_embed.patch_size = (8, 8)
        self.blocks = nn.Sequential(Attention(), nn.LayerNorm(12))

    def forward(self, x: Any) -> Any:
        tokens = self.patch_embed(x).flatten(2).transpose(1, 2)
        return self.blocks(torch.cat([tokens.new_ones(len(x), 1, 12), tokens], dim=1))


def transformer() -> Backbone:
    return Backbone.from_module(Tokens(), ["blocks.1"], name="tokens")


def lite() -> Backbone:
    return load_backbone("efficientnet_lite2", weights="random", depth=3)


@pytest.mark.parametrize("make", [normed_backbone, lite, transformer])
def test_features_are_torchs(real: str, make: Any) -> None:
    plain = make()
    exported = plain.with_runtime(real)
    found, expected = exported.extract(BATCH), plain.extract(BATCH)
    assert exported.runtime == real
    assert exported.fingerprint == plain.fingerprint
    assert largest_difference(found, expected) < 1e-5
    assert all(level.is_contiguous(memory_format=torch.channels_last) for level in found)
    kept = [level.clone() for level in found]
    assert [level[1:2].numpy().tobytes() for level in found] == bits(exported, BATCH[1:2])
    assert bits(exported) == [level.numpy().tobytes() for level in kept]
    assert all(torch.equal(a, b) for a, b in zip(found, kept, strict=True))  # nothing was written to later
    assert exported.level_shapes(32, 40) == plain.level_shapes(32, 40)


def test_another_size_is_another_export(real: str, cache: Path) -> None:
    exported = normed_backbone().with_runtime(real)
    exported.extract(BATCH)
    first = network_cache.cached_networks()
    assert (first[0], first[1] > 0) == (1, True)
    assert exported.level_shapes(64, 32) == normed_backbone().level_shapes(64, 32)
    assert network_cache.cached_networks()[0] == 2
    # A second backbone, and one in another process, take what is there.
    again = pickle.loads(pickle.dumps(exported))
    assert bits(again) == bits(exported) == bits(normed_backbone().with_runtime(real))
    assert network_cache.cached_networks()[0] == 2


def test_precisions(real: str) -> None:
    exported = normed_backbone().with_runtime(real)
    with pytest.raises(ParameterError, match=f"precision: {real} computes in float32.*not in float16; choose"):
        exported.extract(BATCH, precision="float16")
    if real == "onnxruntime":
        with pytest.raises(ParameterError, match="not in bfloat16"):
            exported.extract(BATCH, precision="bfloat16")
        return
    import openvino

    if "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        half = exported.extract(BATCH, precision="bfloat16")
        assert 1e-4 < largest_difference(half, exported.extract(BATCH)) < 3e-2
    else:
        with pytest.raises(RuntimeUnavailableError, match="this processor has no bfloat16"):
            exported.extract(BATCH, precision="bfloat16")


@pytest.mark.parametrize(
    ("kind", "package", "extra"),
    [(OpenVinoNetwork, "openvino", "openvino"), (OnnxNetwork, "onnx", "onnx"), (OnnxNetwork, "onnxruntime", "onnx")],
)
def test_a_runtime_that_is_not_installed(kind: type, package: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    words = rf"{package} is not installed; pip install 'inreach_fast\[{extra}\]', or choose backbone_runtime=\"torch\""
    if package == "onnxruntime" and importlib.util.find_spec("onnx") is None:
        words = "onnx is not installed"
    with pytest.raises(RuntimeUnavailableError, match=words):
        normed_backbone().with_runtime(kind.runtime)


# --- the cache


def test_an_export_is_made_once(fake: type[FakeNetwork], cache: Path) -> None:
    network_cache.set_network_cache(None)
    first = normed_backbone().with_runtime("openvino")
    expected = bits(first)
    assert bits(normed_backbone().with_runtime("openvino")) == expected
    assert fake.exports == 1
    assert len(list(cache.iterdir())) == 1
    assert not list(cache.glob(".*"))


def test_the_cache_can_be_named_and_emptied(fake: type[FakeNetwork], tmp_path: Path) -> None:
    named = tmp_path / "named"
    network_cache.set_network_cache(named)
    try:
        normed_backbone().with_runtime("openvino").extract(BATCH)
        (named / "mine").mkdir()
        (named / "mine.txt").write_text("stays")
        count, size = network_cache.cached_networks()
        assert (count, size > 0) == (1, True)
        assert network_cache.empty_network_cache() == (1, size)
        assert sorted(path.name for path in named.iterdir()) == ["mine", "mine.txt"]
        assert network_cache.empty_network_cache() == (0, 0)
    finally:
        network_cache.set_network_cache(None)


@pytest.mark.parametrize("harm", ["flipped", "shorter", "missing", "no list"])
def test_a_damaged_cache_is_made_again(
    fake: type[FakeNetwork], cache: Path, harm: str, caplog: pytest.LogCaptureFixture
) -> None:
    expected = bits(normed_backbone().with_runtime("openvino"))
    (entry,) = cache.iterdir()
    file = entry / ("files.json" if harm == "no list" else "network.pt")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content[:-3] if harm == "shorter" else content)
    if harm in ("missing", "no list"):
        file.unlink()
    with caplog.at_level(logging.WARNING, "inreach_fast"):
        assert bits(normed_backbone().with_runtime("openvino")) == expected
    assert "damaged network export; it is made again" in caplog.text
    assert fake.exports == 2
    caplog.clear()
    assert bits(normed_backbone().with_runtime("openvino")) == expected
    assert (fake.exports, caplog.text) == (2, "")


def test_a_cache_that_cannot_be_written_costs_time_only(
    fake: type[FakeNetwork], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    expected = bits(normed_backbone().with_runtime("openvino"))
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("INREACH_NETWORK_CACHE", str(tmp_path / "file" / "networks"))
    assert bits(normed_backbone().with_runtime("openvino")) == expected
    assert "cannot be kept here (Not a directory)" in caplog.text
    assert "INREACH_NETWORK_CACHE" in caplog.text
    assert fake.exports == 2


def test_a_full_disk(
    fake: type[FakeNetwork], cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    whole = fake.write

    def full(self: FakeNetwork, network: Any, example: Any, folder: Path) -> None:
        whole(self, network, example, folder)
        if folder.parent == cache or everywhere:
            (folder / "network.pt").write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(fake, "write", full)
    everywhere = False
    expected = bits(normed_backbone().with_runtime("openvino"))
    assert "cannot be kept here (No space left on device)" in caplog.text
    assert list(cache.iterdir()) == []
    everywhere = True
    with pytest.raises(SaveError, match=f"{tempfile.gettempdir()}: .*cannot be written .*No space left.*; free some"):
        normed_backbone().with_runtime("openvino").extract(BATCH)
    assert list(cache.iterdir()) == []
    monkeypatch.setattr(fake, "write", whole)
    assert bits(normed_backbone().with_runtime("openvino")) == expected


# --- exports that fail, and what takes their place


def test_an_export_that_fails(fake: type[FakeNetwork], cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise ZeroDivisionError("unknown operation aten::new\nand a long trace")

    monkeypatch.setattr(fake, "write", fails)
    words = r"openvino cannot take normed \(ZeroDivisionError: unknown operation aten::new\); choose .*\"torch\""
    with pytest.raises(RuntimeUnavailableError, match=words):
        normed_backbone().with_runtime("openvino").extract(BATCH)
    monkeypatch.undo()
    assert not cache.exists() or list(cache.iterdir()) == []


def test_an_export_that_cannot_be_opened(fake: type[FakeNetwork], monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("no such instruction")

    monkeypatch.setattr(fake, "open", fails)
    with pytest.raises(RuntimeUnavailableError, match=r"openvino cannot open normed \(RuntimeError: no such inst"):
        normed_backbone().with_runtime("openvino").extract(BATCH)


@pytest.mark.parametrize("gain", [1.01, float("nan")])
def test_an_export_with_other_features_is_refused(
    fake: type[FakeNetwork], gain: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fake, "gain", gain)
    with pytest.raises(RuntimeUnavailableError, match=r"other features than by torch .*--empty-cache\), or choose"):
        normed_backbone().with_runtime("openvino").extract(BATCH)


def test_a_forked_process_is_told(fake: type[FakeNetwork], monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = normed_backbone().with_runtime("openvino")
    backbone.extract(BATCH)
    monkeypatch.setitem(threads._started_in, "runtimes", threads._started_in["runtimes"] + 1)
    with pytest.raises(ForkError, match=r"forked after a network had run in process \d+.*get_context\(\"spawn\"\)"):
        backbone.extract(BATCH)


SIGNAL = """
import gc, os, signal, sys
import numpy as np
from small_networks import normed_backbone

image = np.zeros((1, 32, 40, 3), np.uint8)
first, second = (normed_backbone().with_runtime("openvino", (32, 40)) for _ in range(2))
for backbone in (first, second):
    backbone.extract(image)
del backbone
del first
gc.collect()
del second
gc.collect()
filled = [np.ones(4096, np.uint8) for _ in range(1000)]  # where a stack may have been
heard = []
signal.signal(signal.SIGTERM, lambda *_: heard.append(1))
os.kill(os.getpid(), signal.SIGTERM)
print(heard)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_signals_are_heard_after_networks_of_openvino_are_gone(cache: Path) -> None:
    pytest.importorskip("openvino")
    paths = os.pathsep.join(filter(None, sys.path))
    environment = {**os.environ, "PYTHONPATH": paths}
    done = subprocess.run([sys.executable, "-c", SIGNAL], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, "[1]"), done.stderr


# --- auto


def test_auto_takes_the_fastest_and_says_so(
    fake: type[FakeNetwork], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("INREACH_BACKBONE_RUNTIME")
    with caplog.at_level(logging.INFO, "inreach_fast"):
        assert by_fastest_runtime(normed_backbone(), (32, 40)).runtime == "openvino"
    assert "backbone_runtime: openvino" in caplog.text
    given = normed_backbone().with_runtime("torch")
    assert by_fastest_runtime(given, (32, 40)) is given
    monkeypatch.setenv("INREACH_BACKBONE_RUNTIME", "torch-unfolded")
    assert by_fastest_runtime(normed_backbone(), (32, 40)).runtime == "torch-unfolded"
    monkeypatch.setenv("INREACH_BACKBONE_RUNTIME", "tensorrt")
    with pytest.raises(ParameterError, match=r"INREACH_BACKBONE_RUNTIME: .*'tensorrt'"):
        by_fastest_runtime(normed_backbone(), (32, 40))


def test_auto_takes_torch_for_networks_of_winograds_algorithm(
    fake: type[FakeNetwork], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("INREACH_BACKBONE_RUNTIME")
    layers = [nn.Conv2d(3, 32, 1), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1), nn.BatchNorm2d(32)]
    network = fill_norms(nn.Sequential(*layers)).eval()
    backbone = Backbone.from_module(network, ["4"], name="square")
    by_torch = backbone.with_runtime("torch", (32, 40))
    share = by_torch.winograd_share((32, 40))
    if _core is None or _core.isa() == "scalar":
        assert (share, by_fastest_runtime(backbone, (32, 40)).runtime) == (0.0, "openvino")
        return
    assert share == 32 * 9 / (32 * 9 + 3)
    assert by_fastest_runtime(backbone, (32, 40)).runtime == "torch"
    assert fake.exports == 0
    assert backbone.winograd_share((32, 40)) == 0.0  # layer by layer
    monkeypatch.setattr(choosing, "_WINOGRAD_SHARE", 1.0)
    assert by_fastest_runtime(backbone, (32, 40)).runtime == "openvino"


def test_auto_says_that_a_network_refuses_the_size(fake: type[FakeNetwork], monkeypatch: pytest.MonkeyPatch) -> None:
    class Picky(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x: Any) -> Any:
            assert x.shape[2] == 64, "64 rows alone"
            return self.conv(x)

    monkeypatch.delenv("INREACH_BACKBONE_RUNTIME")
    with pytest.raises(BackboneError, match=r"(?s)64 rows alone.*try another image_size"):
        by_fastest_runtime(Backbone.from_module(Picky(), ["conv"]), (32, 40))


def test_auto_passes_over_what_cannot_run_the_network(
    fake: type[FakeNetwork], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("INREACH_BACKBONE_RUNTIME")
    monkeypatch.setattr(fake, "gain", 2.0)
    assert by_fastest_runtime(normed_backbone(), (32, 40)).runtime == "torch"
    assert "other features than by torch" in caplog.text
    monkeypatch.setattr(fake, "gain", 1.0)
    backbone = normed_backbone()
    backbone.device = torch.device("meta")  # any that is not the CPU
    assert by_fastest_runtime(backbone, (32, 40)).runtime == "torch"
