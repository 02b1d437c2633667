"""An anomalib model: InReaCh through anomalib's Engine, datamodules and metrics.

    >>> from anomalib.data import Folder
    >>> from anomalib.engine import Engine
    >>> from inreach_fast.integrations.anomalib import InReaChModule
    >>> engine, model = Engine(), InReaChModule(backbone="efficientnet_lite2")
    >>> engine.fit(model, datamodule=Folder(name="part", root="part", normal_dir="photos", abnormal_dir="bad"))
    >>> engine.test(model, datamodule=datamodule)

Training images need no sorting, and the threshold comes from them, without labels. A checkpoint holds the bytes of the
model's file in place of weights: data, no program.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import IntegrationError, NotFittedError
from ..estimator import InReaCh
from ..estimator.pickling import file_bytes
from .versions import check_version

try:
    import anomalib
    from anomalib import LearningType
    from anomalib.data import InferenceBatch
    from anomalib.metrics import Evaluator
    from anomalib.models.components import AnomalibModule, MemoryBankMixin
    from anomalib.post_processing import PostProcessor
    from anomalib.pre_processing import PreProcessor
    from anomalib.visualization import Visualizer
    from torchvision.transforms.v2 import Compose, Resize
except ImportError as error:
    raise IntegrationError(
        f"inreach_fast.integrations.anomalib: needs anomalib 2.7 ({error}); pip install 'inreach_fast[anomalib]'",
        name="anomalib",
    ) from error


check_version("anomalib", str(anomalib.__version__), "2.7")


class InReaChTorchModel(torch.nn.Module):
    """The model as a torch module: it collects images while it trains, and scores them afterwards.

    Args:
        parameters: of `InReaCh`.
    """

    def __init__(self, **parameters: Any) -> None:
        super().__init__()
        self.inreach = InReaCh(**parameters)
        self._images: list[Any] = []

    @property
    def threshold(self) -> float | None:
        """The image score above which an image is anomalous; None before the fit."""
        return None if self.inreach._state is None else self.inreach.threshold_

    def forward(self, batch: torch.Tensor) -> Any:
        """Predictions for images (B, 3, H, W), floats in 0..1; in training mode the images are kept for `fit`.

        Returns:
            `InferenceBatch`: pred_score (B,), anomaly_map (B, 1, H, W) in the frame of the images, 0 outside of a
            region of interest; in training mode the batch.
        """
        images = (batch.detach().float().clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
        if self.training:
            self._images.extend(images)
            return batch
        if self.threshold is None:
            raise NotFittedError("InReaChModule: not fitted yet; call Engine.fit, or give a checkpoint")
        found = self.inreach.predict(list(images))
        size = (int(images.shape[1]), int(images.shape[2]))
        maps = [np.nan_to_num(self.inreach.map_to_original(one, size)) for one in found.anomaly_map]
        return InferenceBatch(
            pred_score=torch.from_numpy(found.score).to(batch.device),
            anomaly_map=torch.from_numpy(np.stack(maps))[:, None].to(batch.device),
        )

    def fit(self) -> None:
        """Fits the images that were collected; errors as `InReaCh.fit`."""
        images, self._images = self._images, []
        self.inreach.fit(images)

    def get_extra_state(self) -> torch.Tensor:
        """The bytes of the model's file, uint8, without the training images; empty before the fit."""
        if self.threshold is None:
            return torch.empty(0, dtype=torch.uint8)
        data = file_bytes(lambda path: self.inreach.save(path, final=True))
        return torch.from_numpy(np.frombuffer(data, np.uint8).copy())

    def set_extra_state(self, state: torch.Tensor) -> None:
        """Takes a model from these bytes; errors as `InReaCh.load`."""
        if not len(state):
            return
        p = self.inreach.parameters
        with tempfile.TemporaryDirectory(prefix="inreach-", ignore_cleanup_errors=True) as folder:
            path = Path(folder) / "model"
            path.write_bytes(state.cpu().numpy().tobytes())
            self.inreach = InReaCh.load(path, device=p.device, backend=p.backend, backbone_runtime=p.backbone_runtime)


class InReaChPostProcessor(PostProcessor):  # type: ignore[misc]
    """anomalib's post-processor with the threshold that the fit chose without labels, for images and pixels."""

    def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """The range of the scores from the validation set, the threshold from the model."""
        super().on_validation_epoch_end(trainer, pl_module)
        self.take_threshold(pl_module)

    def on_test_start(self, trainer: Any, pl_module: Any) -> None:
        """The threshold also without a validation set."""
        self.take_threshold(pl_module)

    def on_predict_start(self, trainer: Any, pl_module: Any) -> None:
        """As `on_test_start`."""
        self.take_threshold(pl_module)

    def take_threshold(self, module: Any) -> None:
        """Makes the model's threshold that of images and pixels, in a range of 0 to twice that if no other is known."""
        threshold = module.model.threshold
        if threshold is None:
            return
        for limit, low, high in (
            (self._image_threshold, self.image_min, self.image_max),
            (self._pixel_threshold, self.pixel_min, self.pixel_max),
        ):
            limit.fill_(threshold)
            if bool(low.isnan() | high.isnan()):
                low.fill_(0.0)
                high.fill_(2 * threshold or 1.0)


class InReaChModule(MemoryBankMixin, AnomalibModule):  # type: ignore[misc]
    """InReaCh for anomalib's Engine. Defective images may be among the training images.

    Args:
        preset, backbone: as in `InReaCh`; a backbone by name, so that checkpoints can be loaded.
        parameters: any of `Parameters`, by keyword.
        pre_processor: True: images are resized to the model's input and not normalised (the network's backbone does).
        post_processor: True: `InReaChPostProcessor`; or one of anomalib's, which chooses thresholds from labels.
        evaluator, visualizer: as in anomalib.

    Images are floats in 0..1. Use `.model.inreach` for the fitted `InReaCh`, as to save it.
    """

    def __init__(
        self,
        preset: str = "default",
        backbone: str = "wide_resnet50_2",
        parameters: dict[str, Any] | None = None,
        pre_processor: torch.nn.Module | bool = True,
        post_processor: torch.nn.Module | bool = True,
        evaluator: Evaluator | bool = True,
        visualizer: Visualizer | bool = True,
    ) -> None:
        model = InReaChTorchModel(preset=preset, backbone=backbone, **(parameters or {}))
        if pre_processor is True:
            pre_processor = self.configure_pre_processor(model.inreach.parameters.input_size)
        super().__init__(
            pre_processor=pre_processor, post_processor=post_processor, evaluator=evaluator, visualizer=visualizer
        )
        self.model = model

    def training_step(self, batch: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Collects the batch; the loss is 0, since nothing is optimised."""
        self.model(batch.image)
        return torch.zeros((), requires_grad=True, device=self.device)

    def validation_step(self, batch: Any, *args: Any, **kwargs: Any) -> Any:
        """Predictions of the batch."""
        return batch.update(**self.model(batch.image)._asdict())

    def fit(self) -> None:
        """Fits the collected images; called by the Engine."""
        self.model.fit()

    @staticmethod
    def configure_optimizers() -> None:
        """Nothing is optimised."""

    @staticmethod
    def configure_pre_processor(image_size: tuple[int, int] | None = None) -> PreProcessor:
        """Resizes images to ``image_size``, 224 x 224 unless given."""
        return PreProcessor(transform=Compose([Resize(image_size or (224, 224), antialias=True)]))

    def configure_post_processor(self) -> PostProcessor:
        """`InReaChPostProcessor`."""
        return InReaChPostProcessor()

    @property
    def trainer_arguments(self) -> dict[str, Any]:
        """One pass over the training images."""
        return {"gradient_clip_val": 0, "max_epochs": 1, "num_sanity_val_steps": 0, "devices": 1}

    @property
    def learning_type(self) -> LearningType:
        """One class, though the images need no sorting: anomalib has no other word for it."""
        return LearningType.ONE_CLASS

    def to_onnx(self, *args: Any, **kwargs: Any) -> Any:
        """Raises IntegrationError."""
        raise IntegrationError(
            "to_onnx: an exact search is no graph of tensor operations; save the model with "
            "`.model.inreach.save(path)`, and inspect with `InReaCh.load` or `inreach predict`"
        )

    to_openvino = to_onnx
