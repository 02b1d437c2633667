"""The anomalib model, through anomalib's own Engine, datamodules and metrics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("anomalib", reason="anomalib is not installed")

import torch
from anomalib.data import Folder, MVTecAD
from anomalib.engine import Engine
from PIL import Image

from inreach_fast import InReaCh
from inreach_fast.errors import IntegrationError, NotFittedError
from inreach_fast.integrations.anomalib import InReaChModule

FACTORY = """
import torch
from inreach_fast.backbones import IMAGENET, BackboneDefinition


def build():
    torch.manual_seed(0)
    module = torch.nn.Sequential()
    module.add_module("a", torch.nn.Sequential(torch.nn.Conv2d(3, 16, 4, stride=4), torch.nn.ReLU()))
    return BackboneDefinition(module, ("a",), IMAGENET, "tiny")
"""
SIDE = 48
DEFECT = slice(16, 28)


def save(path: Path, seed: int, *, defect: bool) -> None:
    random = np.random.default_rng(seed)
    x = np.mgrid[:SIDE, :SIDE][1]
    pixels = np.clip(100 + 50 * np.sin(x / 3) + random.normal(0, 4, (SIDE, SIDE)), 0, 255).astype(np.uint8)
    if defect:
        pixels[DEFECT, DEFECT] = 250
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.repeat(pixels[:, :, None], 3, axis=2)).save(path)


def save_mask(path: Path) -> None:
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[DEFECT, DEFECT] = 255
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask).save(path)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A class in MVTec's layout, one defect among its training images; also the folders of `Folder`."""
    base = tmp_path_factory.mktemp("data")
    for i in range(8):
        save(base / "part" / "train" / "good" / f"{i:03d}.png", i, defect=i == 5)
    for i in range(4):
        save(base / "part" / "test" / "good" / f"{i:03d}.png", 20 + i, defect=False)
        save(base / "part" / "test" / "crack" / f"{i:03d}.png", 40 + i, defect=True)
        save_mask(base / "part" / "ground_truth" / "crack" / f"{i:03d}_mask.png")
    (base / "tiny.py").write_text(FACTORY)
    return base


def module(root: Path, **options: Any) -> InReaChModule:
    parameters = {"image_size": SIDE, "dim": 16, "pca_dim": None, "grid_stride": 1, "smoothing_sigma": 1.0}
    return InReaChModule(backbone=f"{root / 'tiny.py'}:build", parameters=parameters, visualizer=False, **options)


def engine(folder: Path) -> Engine:
    return Engine(accelerator="cpu", devices=1, logger=False, default_root_dir=folder)


def folder_data(root: Path) -> Folder:
    return Folder(
        name="part",
        root=root / "part",
        normal_dir="train/good",
        normal_test_dir="test/good",
        abnormal_dir="test/crack",
        mask_dir="ground_truth/crack",
        train_batch_size=3,
        eval_batch_size=4,
        num_workers=0,
        val_split_mode="same_as_test",
    )


def mvtec_data(root: Path) -> MVTecAD:
    return MVTecAD(root=root, category="part", train_batch_size=3, eval_batch_size=4, num_workers=0)


@pytest.mark.parametrize("data", [folder_data, mvtec_data])
def test_it_trains_and_tests_through_the_engine(data: Any, root: Path, tmp_path: Path) -> None:
    model, run = module(root), engine(tmp_path)
    datamodule = data(root)
    run.fit(model, datamodule=datamodule)
    fitted = model.model.inreach
    assert fitted.n_images_ == 8
    assert len(fitted.report_["above_threshold"]) == 1  # the defect
    metrics = run.test(model, datamodule=datamodule)[0]
    assert metrics["image_AUROC"] == 1
    assert metrics["image_F1Score"] == 1  # by the threshold that the fit chose
    assert metrics["pixel_AUROC"] > 0.95

    paths = sorted((root / "part" / "train" / "good").iterdir())
    ours = InReaCh(backbone=f"{root / 'tiny.py'}:build", **model.hparams["parameters"]).fit(paths)
    assert ours.threshold_ == fitted.threshold_
    path = root / "part" / "test" / "crack" / "000.png"
    assert ours.predict(path).score == fitted.predict(path).score


def test_a_checkpoint_holds_the_model(root: Path, tmp_path: Path) -> None:
    model, run, datamodule = module(root), engine(tmp_path), folder_data(root)
    run.fit(model, datamodule=datamodule)
    run.trainer.save_checkpoint(tmp_path / "model.ckpt")
    again = module(root)
    assert again.model.threshold is None
    metrics = engine(tmp_path / "2").test(again, datamodule=datamodule, ckpt_path=str(tmp_path / "model.ckpt"))[0]
    assert metrics["image_AUROC"] == 1
    assert again.model.threshold == model.model.threshold
    assert not again.model.inreach.can_grow
    batch = torch.rand(2, 3, SIDE, SIDE)
    model.eval()
    torch.testing.assert_close(again.eval().model(batch), model.model(batch))


def test_without_validation_images_the_models_threshold_is_one_half(root: Path) -> None:
    images = [np.asarray(Image.open(path)) for path in sorted((root / "part").rglob("train/good/*.png"))]
    batch = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2) / 255
    model = module(root).train()
    model.model(batch)
    model.fit()
    model.eval()
    model.post_processor.on_test_start(None, model)
    found = model(batch)
    assert found.pred_label.tolist() == model.model.inreach.predict(images).is_anomalous.tolist()
    assert ((found.pred_score > 0.5) == found.pred_label).all()
    assert found.anomaly_map.shape == (8, 1, SIDE, SIDE)


def test_predictions_have_labels_by_the_models_threshold(root: Path, tmp_path: Path) -> None:
    model, run, datamodule = module(root), engine(tmp_path), folder_data(root)
    run.fit(model, datamodule=datamodule)
    for batch in run.predict(model, datamodule=datamodule):
        for path, label, values in zip(batch.image_path, batch.pred_label, batch.anomaly_map, strict=True):
            assert bool(label) == model.model.inreach.predict(path).is_anomalous == ("crack" in path)
            assert values.squeeze().shape == (SIDE, SIDE)


def test_what_it_does_not_do_is_said(root: Path, tmp_path: Path) -> None:
    model = module(root)
    with pytest.raises(NotFittedError, match=r"call Engine\.fit"):
        model.eval().model(torch.zeros(1, 3, SIDE, SIDE))
    with pytest.raises(IntegrationError, match=r"inreach\.save\(path\)"):
        model.to_onnx(tmp_path)
