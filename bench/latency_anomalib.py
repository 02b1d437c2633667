"""anomalib's PatchCore as contestants of `bench.latency`: by torch, and its OpenVINO export.

The network is the same one with random weights, the bank as large as PatchCore's at its default settings: every tenth
patch of the training images in place of the tenth that its coreset picks. Neither changes what a prediction takes.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .workload import Workload

TORCH, OPENVINO = "anomalib PatchCore, torch", "anomalib PatchCore, OpenVINO"
_KEPT = 10  # one patch in so many is in the bank


def contestants(work: Workload, folder: Path, images: int) -> dict[str, Callable[[str], object]]:
    """Predictions from a file's path, by name; none where anomalib (for OpenVINO: openvino, onnxscript) is missing.

    Args:
        folder: takes the exported models. images: training images.
    """
    if find_spec("anomalib") is None:
        return {}
    from anomalib.deploy import OpenVINOInferencer, TorchInferencer

    model = _fitted(work, images)
    found: dict[str, Callable[[str], object]] = {}
    with _within(folder), _trusted():  # OpenVINO's cache goes to the working folder
        found[TORCH] = TorchInferencer(model.to_torch(folder), device="cpu").predict
        if find_spec("openvino") is not None and find_spec("onnxscript") is not None:
            size = (work.image_size, work.image_size)
            # One image at a time: with the default, a batch of any size, the export takes two images, no other number.
            export = model.to_openvino(folder, input_size=size, onnx_kwargs={"dynamic_shapes": None})
            inferencer = OpenVINOInferencer(export, device="CPU")
            resize = _resized(work.image_size)
            found[OPENVINO] = lambda path: inferencer.predict(resize(path))
    return found


def _fitted(work: Workload, images: int) -> Any:
    """A PatchCore with the bank of some training images."""
    import torch
    from anomalib.models import Patchcore

    size = (work.image_size, work.image_size)
    pre = Patchcore.configure_pre_processor(image_size=size)
    model = Patchcore(pre_trained=False, pre_processor=pre, visualizer=False)
    core = model.model
    core.train()
    core.feature_extractor.eval()
    with torch.no_grad():
        for pixels in work.training_images(images):
            image = torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255.0
            core(pre.transform(image))
    core.memory_bank = torch.vstack(core.embedding_store)[::_KEPT].clone()
    core.embedding_store.clear()
    return model.eval()


def _resized(size: int) -> Callable[[str], Any]:
    """What a program that uses the export does first: it takes images of one size alone."""
    import numpy as np
    from PIL import Image

    def read(path: str) -> Any:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR))

    return read


@contextmanager
def _within(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


@contextmanager
def _trusted() -> Iterator[None]:
    """anomalib's exports for torch are pickles, which it opens only where this is set; this one was just written."""
    before = os.environ.get("TRUST_REMOTE_CODE")
    os.environ["TRUST_REMOTE_CODE"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["TRUST_REMOTE_CODE"]
        else:
            os.environ["TRUST_REMOTE_CODE"] = before
