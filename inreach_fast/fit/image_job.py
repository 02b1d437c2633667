"""The work that a fit does for each image, as a job that any process can do: describe it, let its patches join.

`ImageAssociation` is the job's description, sent once to each worker; it can be pickled. `build` makes the worker from
it, and the worker takes one `ImageTask` after another. Images do not depend on each other, so that any number of
workers gives what one gives.

Where the network and the kernels are on a GPU, an image's descriptors stay there: they are described, checked and
associated with the seeds' on the GPU, and only the rows that are kept come to the CPU's memory.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from .. import kernels
from ..array_types import FloatArray, IndexArray, UInt8Array
from ..method.association import Associator, ImageMembers, members_of
from ..method.descriptors import describe_image, described_rows, in_memory

if TYPE_CHECKING:
    from ..backbones import Backbone

# uint8 (1, H, W, 3) to float32 (1, P, dim), in the CPU's memory or on a GPU.
Describe = Callable[[UInt8Array], Any]


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
class ImageAssociation:
    """Everything that a worker needs to know.

    Attributes:
        seed_images: int64 (S,), ascending. seed_rows: float32 (S, P, D), position channels included.
        positions: float32 (P, 2) position channels, or None.
        pairs, dim, neighbourhood, backend: as in `Parameters`.
        backbone: the network, or its spec (`Backbone.spec`) with its device and the folder of its weights: what is
            sent to another process.
        torch_threads: torch's threads: features may differ in their last bits between two numbers of them.
        describe: in this process, what describes a batch, where that is more than the network (a cache may stand before
            it); not sent.
        gpu_memory: `set_gpu_memory_limit` of the worker's process.
    """

    seed_images: IndexArray
    seed_rows: FloatArray
    positions: FloatArray | None
    pairs: str
    dim: int
    neighbourhood: int
    backend: str
    backbone: Backbone | BackboneSource | None
    torch_threads: int
    describe: Describe | None = field(default=None, compare=False)
    gpu_memory: int | None = None

    def build(self) -> Worker:
        """The worker, with its network and its prepared seeds."""
        if self.describe is not None:
            return Worker(self, self.describe)
        import torch

        torch.set_num_threads(self.torch_threads)
        kernels.set_gpu_memory_limit(self.gpu_memory)
        backbone = self.backbone.load() if isinstance(self.backbone, BackboneSource) else self.backbone
        assert backbone is not None
        network: Backbone = backbone

        def describe(batch: UInt8Array) -> Any:
            rows, _ = describe_image(
                batch[0], network, dim=self.dim, neighbourhood=self.neighbourhood, backend=self.backend
            )
            return (rows if kernels.is_gpu_name(self.backend) else in_memory(rows))[None]

        return Worker(self, describe)

    def __reduce__(self) -> tuple[Any, ...]:
        backbone = self.backbone
        if backbone is not None and not isinstance(backbone, BackboneSource) and backbone.spec.get("rebuildable"):
            backbone = BackboneSource(dict(backbone.spec), str(backbone.device), None, backbone.fingerprint)
        sent = replace(self, describe=None, backbone=backbone)
        return _rebuilt, (dict(sent.__dict__),)


def _rebuilt(values: dict[str, Any]) -> ImageAssociation:
    return ImageAssociation(**values)


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


class Worker:
    """Takes images, gives their members; made by `ImageAssociation.build`."""

    def __init__(self, spec: ImageAssociation, describe: Describe) -> None:
        self._spec = spec
        self._describe = describe
        self._associator = Associator(spec.seed_images, spec.seed_rows, pairs=spec.pairs, backend=spec.backend)
        self._slot = {image: slot for slot, image in enumerate(spec.seed_images.tolist())}

    def __call__(self, task: ImageTask) -> ImageMembers:
        """Does one image.

        Raises:
            NonFiniteError: the network's features; names the image.
        """
        begin = time.perf_counter()
        slot = self._slot.get(task.number)
        rows = self._spec.seed_rows[slot] if slot is not None else self._described(task)
        described = time.perf_counter() - begin
        found = members_of(self._associator, task.number, rows, is_seed=slot is not None, whole=task.whole)
        return found._replace(seconds=(described, found.seconds[1]))

    def _described(self, task: ImageTask) -> Any:
        assert task.pixels is not None
        return described_rows(self._describe, task.pixels, self._spec.positions, task.name)
