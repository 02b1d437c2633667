"""The work that a fit does for each image, as a job that any process can do: describe it, let its patches join.

`ImageJob` is the job's description, sent once to each worker; it can be pickled. `build` makes the worker from
it, and the worker takes one `ImageTask` after another. Images do not depend on each other, so that any number of
workers gives what one gives.

Where the network and the kernels are on a GPU, an image's descriptors stay there: they are described, checked and
associated with the seeds' on the GPU, and only the rows that are kept come to the CPU's memory.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from .. import kernels
from ..array_types import FloatArray, IndexArray, UInt8Array
from ..method.association import Associator, ImageMembers, members_of
from ..method.descriptors import Describer, described_rows
from ..parameters import Parameters

if TYPE_CHECKING:
    from ..backbones import Backbone


class ImageTask(NamedTuple):
    """One image.

    Attributes:
        number: its training index.
        pixels: uint8 (H, W, 3), the network's input, turned if alignment is kept; None for a seed image, whose
            descriptors every worker has.
        whole: whether the patches that join no channel are wanted as well.
        name: for errors.
    """

    number: int
    pixels: UInt8Array | None
    whole: bool
    name: str


@dataclass(frozen=True, eq=False)
class ImageJob:
    """Describes images and associates them; pickled, it is sent once to each worker process.

    Attributes:
        seed_images: int64 (S,), ascending. seed_rows: float32 (S, P, D), with position channels.
        positions: float32 (P, 2) position channels, or None.
        parameters: the estimator's.
        describer: the estimator's; in another process, what its network is made from there.
        torch_threads: number of torch threads: the last bits of features may depend on it.
        gpu_memory: the process's `set_gpu_memory_limit`.
    """

    seed_images: IndexArray
    seed_rows: FloatArray
    positions: FloatArray | None
    parameters: Parameters
    describer: Describer | Backbone | BackboneSource
    torch_threads: int
    gpu_memory: int | None = None

    def build(self) -> ImageWorker:
        """The function that does the tasks, with its network and its prepared seeds."""
        import torch

        torch.set_num_threads(self.torch_threads)
        kernels.set_gpu_memory_limit(self.gpu_memory)
        if isinstance(self.describer, Describer):
            return ImageWorker(self, self.describer)
        backbone = self.describer.load() if isinstance(self.describer, BackboneSource) else self.describer
        return ImageWorker(self, Describer(lambda: backbone, lambda: self.parameters))

    def __reduce__(self) -> tuple[Any, ...]:
        source: Any = self.describer
        if isinstance(source, Describer):
            source = source.backbone
            if source.spec.get("rebuildable"):
                source = BackboneSource(dict(source.spec), str(source.device), None, source.fingerprint)
        return partial(ImageJob, **{**self.__dict__, "describer": source}), ()


@dataclass(frozen=True)
class BackboneSource:
    """Where a backbone is rebuilt from: see `backbone_from_spec`."""

    spec: dict[str, Any]
    device: str
    folder: str | None
    fingerprint: str

    def load(self) -> Backbone:
        """The backbone.

        Raises:
            BackboneMismatchError: another one is found there. BackboneError, WeightsError: it cannot be had.
        """
        from ..backbones import backbone_from_spec
        from ..errors import BackboneMismatchError

        backbone = backbone_from_spec(self.spec, device=self.device, folder=self.folder)
        if backbone.fingerprint != self.fingerprint:
            raise BackboneMismatchError(
                f"backbone: {self.spec.get('name', '?')!r} of fingerprint {self.fingerprint[:12]} is "
                f"{backbone.fingerprint[:12]} in a worker; every worker needs the same weights"
            )
        return backbone


class ImageWorker:
    """Describes and associates one image after another; made by `ImageJob.build`."""

    def __init__(self, job: ImageJob, describer: Describer) -> None:
        self._job, self._describer, p = job, describer, job.parameters
        self._associator = Associator(job.seed_images, job.seed_rows, pairs=p.assoc_pairs, backend=p.kernel_backend)
        self._slot = {image: slot for slot, image in enumerate(job.seed_images.tolist())}

    def __call__(self, task: ImageTask) -> ImageMembers:
        """Does one image.

        Raises:
            NonFiniteError: the network's features; names the image.
        """
        begin = time.perf_counter()
        slot = self._slot.get(task.number)
        rows = self._job.seed_rows[slot] if slot is not None else self._described(task)
        described = time.perf_counter() - begin
        found = members_of(self._associator, task.number, rows, is_seed=slot is not None, whole=task.whole)
        return found._replace(seconds=(described, found.seconds[1]))

    def _described(self, task: ImageTask) -> Any:
        assert task.pixels is not None
        return described_rows(self._describer, task.pixels, self._job.positions, task.name)
