"""Image in, score out on a GPU: GPUs are the host executor, the network is torch's on the CPU, so that the whole way
of `InReaCh` with ``device="cuda"`` runs but for torch.cuda (streams, graphs, page-locked memory)."""

from __future__ import annotations

import copy
import gc
from typing import Any

import numpy as np
import pytest
import torch
from gpu_fakes.gpus import HostGpu, OrderedGpu
from small_networks import Small

from inreach_fast import InReaCh, errors, kernels
from inreach_fast.backbones import Backbone
from inreach_fast.kernels.gpu.backend import GpuBackend, Options
from inreach_fast.kernels.gpu.device import Device
from inreach_fast.kernels.gpu.devices.limit import LEDGER
from inreach_fast.kernels.gpu.devices.memory import TorchMemory
from inreach_fast.kernels.gpu.routes import Route
from inreach_fast.method.descriptors import position_channels
from inreach_fast.predict.gpu.inference import GpuInference, GpuModel
from inreach_fast.predict.gpu.network import TorchNetwork
from inreach_fast.predict.gpu.slots import GpuSlots, Slot


@pytest.fixture(scope="module", params=["never", "always"])
def model(request: pytest.FixtureRequest) -> InReaCh:
    rng = np.random.default_rng(0)
    base = rng.integers(0, 255, (40, 40, 3))
    images = [np.clip(base + rng.integers(-9, 9, base.shape), 0, 255).astype(np.uint8) for _ in range(8)]
    backbone = Backbone.from_module(Small(), ["first", "second"], normalisation="reference")
    return InReaCh(
        "channels", backbone=backbone, image_size=32, dim=16, assoc_depth=3, position=request.param, smoothing_sigma=2.0
    ).fit(images)


def _setting(model: InReaCh) -> GpuModel:
    p = model.parameters
    channels = position_channels(model.grid_, p.position_weight) if model.positions_ else None
    return GpuModel(
        kernels.Bank(np.array(model.nominal_.patches)), model.grid_, p.image_size, p.dim, p.neighbourhood,
        p.smoothing_sigma, channels,
    )  # fmt: skip


def _slots(
    model: InReaCh, gpus: list[HostGpu], options: Options, count: int = 2, torch_memory: bool = True
) -> GpuSlots:
    setting = _setting(model)
    backend = GpuBackend("cuda:0", lambda: Device(gpus[0]), options)
    slots = []
    for number in range(count):
        memory = TorchMemory("cpu") if torch_memory else None
        device = Device(gpus[0], number + 1, memory=memory)
        slots.append(Slot(GpuInference(setting, device, backend, TorchNetwork(model.backbone, setting.size))))
    return GpuSlots(slots)


def _inputs(count: int) -> list[Any]:
    rng = np.random.default_rng(2)
    return [rng.integers(0, 255, (32, 32, 3), dtype=np.uint8) for _ in range(count)]


F32, FP16 = Route("f32", 64), Route("fp16", 64)


@pytest.mark.parametrize(
    "options",
    [
        Options(F32, F32, heads=False, capacity=1 << 12),
        Options(FP16, FP16, heads=True, capacity=1 << 12),
        Options(F32, F32, heads=False, capacity=80),
        Options(FP16, FP16, heads=True, capacity=80),
        Options(F32, F32, heads=False, capacity=1 << 12, memory_limit=20_000),
    ],
    ids=["all dimensions", "leading directions", "overflow", "overflow by directions", "streamed bank"],
)
def test_scores_are_the_cpus_to_the_bit(host_gpus: list[HostGpu], model: InReaCh, options: Options) -> None:
    slots = _slots(model, host_gpus, options)
    images = _inputs(4)
    for image, found in zip(images, slots.scores(images), strict=True):
        expected = model.predict(image)
        np.testing.assert_array_equal(found.patch_scores, expected.patch_scores)
        np.testing.assert_array_equal(found.nearest, expected.nearest)
        np.testing.assert_array_equal(found.anomaly_map, expected.anomaly_map)
        assert found.score == expected.score
        assert found.counts.pairs == expected.counts.pairs
    assert host_gpus[0].streams >= {1, 2}


@pytest.mark.parametrize("memory_limit", [None, 20_000], ids=["bank that stays", "streamed bank"])
def test_what_a_stream_reads_is_its_own_or_waited_for(
    ordered_gpu: OrderedGpu, model: InReaCh, memory_limit: int | None
) -> None:
    options = Options(FP16, FP16, heads=True, capacity=1 << 12, memory_limit=memory_limit)
    slots = _slots(model, [ordered_gpu], options, torch_memory=False)
    ordered_gpu.streams.clear()
    images = _inputs(3)
    scores = [found.score for found in slots.scores(images)]
    assert scores == [model.predict(image).score for image in images]
    assert ordered_gpu.streams == {1, 2}


def test_a_list_of_candidates_within_the_gpus_limit(host_gpus: list[HostGpu], model: InReaCh) -> None:
    image = _inputs(1)[0]
    gc.collect()  # what earlier tests leave in cycles still counts
    held = max(LEDGER.held(gpu.ordinal) for gpu in host_gpus)
    kernels.set_gpu_memory_limit(held + (1 << 20))  # a list of the usual length would have 21 MB
    try:
        (found,) = _slots(model, host_gpus, Options(F32, F32, heads=False), count=1).scores([image])
    finally:
        kernels.set_gpu_memory_limit(None)
    assert found.score == model.predict(image).score


def test_one_wait_an_image(host_gpus: list[HostGpu], model: InReaCh) -> None:
    slots = _slots(model, host_gpus, Options(F32, F32, heads=False, capacity=1 << 12), count=1)
    first, *others = _inputs(4)
    list(slots.scores([first]))  # rehearsed and captured
    before = host_gpus[0].waits
    list(slots.scores(others))
    assert host_gpus[0].waits - before == len(others)


def test_memory_of_the_gpu_itself_and_no_more_of_it_image_by_image(host_gpus: list[HostGpu], model: InReaCh) -> None:
    slots = _slots(model, host_gpus, Options(F32, F32, heads=False, capacity=1 << 12), count=1, torch_memory=False)
    images = _inputs(3)
    list(slots.scores(images[:1]))
    used = host_gpus[0].used
    found = list(slots.scores(images))
    assert host_gpus[0].used == used
    assert found[2].score == model.predict(images[2]).score


def test_features_that_are_not_finite_are_told(host_gpus: list[HostGpu], model: InReaCh) -> None:
    class Poisoned(TorchNetwork):
        def compute(self) -> Any:
            views = super().compute()
            with torch.inference_mode():
                self._levels[0][0, 0, 3, 1] = float("nan")
            return views

    setting = _setting(model)
    backend = GpuBackend("cuda:0", lambda: Device(host_gpus[0]), Options(F32, F32, heads=False, capacity=1 << 12))
    inference = GpuInference(setting, Device(host_gpus[0]), backend, Poisoned(model.backbone, setting.size))
    with pytest.raises(errors.NonFiniteError):
        inference.start(_inputs(1)[0]).collect()


def test_a_network_that_cannot_be_captured_runs_all_the_same(
    host_gpus: list[HostGpu], model: InReaCh, caplog: pytest.LogCaptureFixture
) -> None:
    def capture(work: Any) -> Any:
        raise RuntimeError("operation not permitted when stream is capturing")

    setting = _setting(model)
    backend = GpuBackend("cuda:0", lambda: Device(host_gpus[0]), Options(F32, F32, heads=False, capacity=1 << 12))
    network = TorchNetwork(model.backbone, setting.size)
    inference = GpuInference(setting, Device(host_gpus[0]), backend, network, capture=capture)
    for image in _inputs(2):
        assert inference.start(image).collect().score == model.predict(image).score
    assert "no CUDA graph" in caplog.text


def test_the_estimator_goes_through_the_gpu(
    host_gpus: list[HostGpu], model: InReaCh, monkeypatch: pytest.MonkeyPatch
) -> None:
    slots = _slots(model, host_gpus, Options(F32, F32, heads=False, capacity=1 << 12))
    images = _inputs(5)
    expected = model.predict(np.stack(images))
    monkeypatch.setitem(model._ready().__dict__, "gpu", slots)
    found = model.predict(np.stack(images))
    np.testing.assert_array_equal(found.score, expected.score)
    np.testing.assert_array_equal(found.anomaly_map, expected.anomaly_map)
    np.testing.assert_array_equal(found.nearest, expected.nearest)
    streamed = list(model.predict_stream(iter(images), threshold=float(expected.score[0]) + 1e-3))
    assert [p.score for p in streamed] == expected.score.tolist()
    assert not streamed[0].is_anomalous
    assert model.predict(images[0]).score == expected.score[0]


def test_callers_of_one_model_do_not_have_to_know_of_each_other(
    host_gpus: list[HostGpu], model: InReaCh, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Streams that pause while others predict, and one that is given up with images on their way."""
    slots = _slots(model, host_gpus, Options(F32, F32, heads=False, capacity=1 << 12))
    images, others = _inputs(6), [image[::-1].copy() for image in _inputs(6)]
    expected, expected_others = ([model.predict(image).score for image in part] for part in (images, others))
    monkeypatch.setitem(model._ready().__dict__, "gpu", slots)
    given_up = model.predict_stream(iter(images))
    next(given_up)
    given_up.close()
    streams = model.predict_stream(iter(images)), model.predict_stream(iter(others))
    for ours, theirs, image, *scores in zip(*streams, others, expected, expected_others, strict=True):
        assert [ours.score, theirs.score] == scores
        assert model.predict(image).score == theirs.score


def test_another_model_of_the_same_number_is_another_model(
    host_gpus: list[HostGpu], model: InReaCh, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python gives the place, and so the number, of an object that is gone to a later one."""
    opened: list[GpuModel] = []
    monkeypatch.setattr("inreach_fast.predict.gpu.slots.open_slots", lambda setting, *_: opened.append(setting))
    monkeypatch.setattr(model, "parameters", model.parameters.with_changes(device="cuda", backend="cuda:0"))
    monkeypatch.setattr(model, "nominal_", model.nominal_)
    banks = [kernels.Bank(np.array(model.nominal_.patches)) for _ in range(40)]
    for bank, unseen in zip(banks[::2], banks[1::2], strict=True):
        for each in (unseen, bank):
            later = copy.copy(model.nominal_)
            later.__dict__["_lazy"] = {"bank": each}
            model.nominal_ = later
            del later
        model._ready(images=True)
        assert opened[-1].bank is bank


def test_on_a_gpu_the_search_is_whole_whatever_the_limits(
    host_gpus: list[HostGpu], model: InReaCh, monkeypatch: pytest.MonkeyPatch
) -> None:
    slots = _slots(model, host_gpus, Options(F32, F32, heads=False, capacity=1 << 12))
    images = _inputs(3)
    plain = [model.predict(image) for image in images]
    monkeypatch.setitem(model._ready().__dict__, "gpu", slots)
    middle = sorted(p.score for p in plain)[1]
    for limits in ({"budget_ms": 1e-3}, {"threshold": middle}, {"threshold": middle, "budget_ms": 1e-3}):
        alone = [model.predict(image, **limits) for image in images]
        streamed = list(model.predict_stream(images, **limits))
        for expected, *found in zip(plain, alone, streamed, strict=True):
            for ours in found:
                assert ours.score == ours.score_lower == ours.score_upper == expected.score
                assert ours.complete
                assert ours.certain
                assert ours.is_anomalous == (expected.score > limits.get("threshold", model.threshold_))
                np.testing.assert_array_equal(ours.patch_scores_lower, expected.patch_scores)
    for wrong in ({"budget_ms": 0}, {"threshold": float("nan")}):
        with pytest.raises(errors.ParameterError, match=next(iter(wrong))):
            model.predict(images[0], **wrong)


def test_limits_with_the_gpus_kernels_through_the_cpus_memory(
    host_gpus: list[HostGpu], model: InReaCh, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As other scores go, and networks that are on the CPU: bounds are proven by the GPU's searches."""
    images = _inputs(3)
    plain = [model.predict(image) for image in images]
    monkeypatch.setattr(model, "parameters", model.parameters.with_changes(backend="cuda:0"))
    for expected, image in zip(plain, images, strict=True):
        for threshold in (expected.score * 0.7, expected.score, expected.score * 1.4):
            found = model.predict(image, threshold=threshold)
            assert found.certain
            assert found.is_anomalous == (expected.score > threshold)
            assert found.score_lower <= expected.score <= found.score_upper
        hurried = model.predict(image, budget_ms=1e-3)
        assert not hurried.complete
        assert hurried.score_lower <= expected.score <= hurried.score_upper
        assert (hurried.patch_scores_lower <= expected.patch_scores).all()
        assert (expected.patch_scores <= hurried.patch_scores).all()
    assert "guess" in host_gpus[0].launches


def test_network_inputs_are_the_cpus(model: InReaCh, monkeypatch: pytest.MonkeyPatch) -> None:
    from inreach_fast.backbones.backbone import prepare_input

    image = _inputs(1)[0]
    seen: list[torch.Tensor] = []
    network = TorchNetwork(model.backbone, (32, 32))
    run = Backbone.run
    monkeypatch.setattr(Backbone, "run", lambda self, x, *given: seen.append(x.clone()) or run(self, x, *given))
    network.feed(image)
    network.compute()
    expected = prepare_input(image[None], model.backbone.normalisation)
    assert torch.equal(seen[0], expected)
    assert seen[0].is_contiguous(memory_format=torch.channels_last)
