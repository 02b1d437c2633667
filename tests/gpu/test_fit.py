"""A fit on a GPU: descriptors that stay there, within a limit, and the bits of the CPU's kernels."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_fits import estimator, pictures, saved
from small_networks import Small

import inreach_fast
from inreach_fast import InReaCh
from inreach_fast.backbones import Backbone

pytestmark = pytest.mark.gpu


def _fitted(cuda: str, images: list[Any], folder: Path, backend: str) -> bytes:
    backbone = Backbone.from_module(Small(), ["first", "second"], device=cuda)
    model: InReaCh = estimator(
        backbone=backbone, device=cuda, image_size=64, dim=16, backend=backend, min_channel_length=1
    ).fit(images)
    model.parameters = model.parameters.with_changes(backend="auto")  # the one thing that may differ
    return saved(model, folder)


def test_the_same_features_make_the_same_model_on_gpu_and_cpu(cuda: str, tmp_path: Path) -> None:
    images = pictures(8, (64, 64))
    assert _fitted(cuda, images, tmp_path, "auto") == _fitted(cuda, images, tmp_path, "native")


def test_a_limit_changes_nothing(cuda: str, tmp_path: Path) -> None:
    images = pictures(8, (64, 64))
    whole = _fitted(cuda, images, tmp_path, "auto")
    gc.collect()  # what models that are gone have held counts until then
    inreach_fast.set_gpu_memory_limit("2MB")
    try:
        assert _fitted(cuda, images, tmp_path, "auto") == whole
    finally:
        inreach_fast.set_gpu_memory_limit(None)


def test_convolutions_do_not_use_tf32(cuda: str) -> None:
    import torch

    generator = torch.Generator().manual_seed(0)
    convolution = torch.nn.Conv2d(3, 64, 3)
    torch.nn.init.normal_(convolution.weight, generator=generator)
    image = np.random.default_rng(0).integers(0, 255, (1, 64, 64, 3), dtype=np.uint8)
    here, there = (
        Backbone.from_module(torch.nn.Sequential(convolution), ["0"], device=device).extract(image)[0].cpu()
        for device in ("cpu", cuda)
    )
    # TF32 keeps ten bits of a factor: it errs by some 1e-3 of the largest value.
    assert float((here - there).abs().max() / here.abs().max()) < 1e-5
