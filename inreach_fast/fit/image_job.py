"""The work that a fit does for each image: describe it, let its patches join channels. Any process can do it.

`ImageJob` is sent once to each worker process (it can be pickled); `build` returns the function that does one
`ImageTask` after another. Images do not depend on each other, so that the number of workers does not change results.

If the network and the kernels are on a GPU, an image is described, checked and associated there, and only the rows that
are kept come to the CPU's memory.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from .. import kernels
from ..array_types import FloatArray, IndexArray, UInt8Array
from ..errors import BackboneMismatchError
from ..kernels import backend_of
from ..method.association import Associator, ImageMembers, members_of, no_members
from ..method.descriptors import Describer, DescriptorSpace, described_rows
from ..parameters import Parameters

if TYPE_CHECKING:
    from ..backbones import Backbone


class ImageTask(NamedTuple):
    """One image.

    Attributes:
        number: its training index.
        pixels: uint8 (H, W, 3), the network's input, rotated if the images are aligned; None for a seed image, whose
            descriptors every worker has.
        whole: whether the patches that join no channel are returned as well.
        name: for errors.
        left_out: the image has no members, and is not described.
    """

    number: int
    pixels: UInt8Array | None
    whole: bool
    name: str
    left_out: bool = False


@dataclass(frozen=True, eq=False, kw_only=True)
class ImageJob:
    """Describes images and associates them with the seed images.

    Attributes:
        seed_images: int64 (S,), ascending: images that were described before. With association="all" nothing
            associates with them: all patches are members.
        seed_rows: float32 (S, P, D), their descriptors.
        space: what is made of the describer's rows.
        parameters: the estimator's.
        describer: the estimator's; in another process, what its network is made from there.
        torch_threads: number of torch threads: the last bits of features may depend on it.
        gpu_memory: the process's `set_gpu_memory_limit`.
    """

    seed_images: IndexArray
    seed_rows: FloatArray
    space: DescriptorSpace
    parameters: Parameters
    describer: Describer | Backbone | BackboneSource
    torch_threads: int
    gpu_memory: int | None = None

    def build(self) -> Callable[[ImageTask], ImageMembers]:
        """The function that does the tasks, with its network and its prepared seeds.

        It raises NonFiniteError, naming the image, if the network's features are not finite.
        """
        import torch

        torch.set_num_threads(self.torch_threads)
        kernels.set_gpu_memory_limit(self.gpu_memory)
        if isinstance(self.describer, Describer):
            describer = self.describer
        else:
            backbone = self.describer.load() if isinstance(self.describer, BackboneSource) else self.describer
            describer = Describer(lambda: backbone, lambda: self.parameters)
        p = self.parameters
        associator = (
            None
            if p.association == "all"
            else Associator(self.seed_images, self.seed_rows, pairs=p.assoc_pairs, backend=backend_of(p))
        )
        slots = {image: slot for slot, image in enumerate(self.seed_images.tolist())}

        def work(task: ImageTask) -> ImageMembers:
            begin = time.perf_counter()
            slot = slots.get(task.number)
            if task.left_out:
                return no_members(self.seed_rows.shape[2])
            if slot is None:
                assert task.pixels is not None
                rows = described_rows(describer, task.pixels, self.space, task.name)
            else:
                rows = self.seed_rows[slot]
            described = time.perf_counter() - begin
            found = members_of(associator, task.number, rows, is_seed=slot is not None, whole=task.whole)
            return found._replace(seconds=(described, found.seconds[1]))

        return work

    def __reduce__(self) -> tuple[Any, ...]:
        source: Any = self.describer
        if isinstance(source, Describer):
            source = source.backbone
            if source.spec.get("rebuildable"):
                source = BackboneSource(
                    dict(source.spec),
                    str(source.device),
                    source.fingerprint,
                    source.runtime,
                    self.parameters.image_size,
                )
        return partial(ImageJob, **{**self.__dict__, "describer": source}), ()


@dataclass(frozen=True)
class BackboneSource:
    """What a backbone is rebuilt from in another process: see `backbone_from_spec`."""

    spec: dict[str, Any]
    device: str
    fingerprint: str
    runtime: str
    size: tuple[int, int]  # of the network's input

    def load(self) -> Backbone:
        """The backbone.

        Raises:
            BackboneMismatchError: the weights found there are others. BackboneError, WeightsError: it cannot be built,
            or (RuntimeUnavailableError) its runtime is not installed there.
        """
        from ..backbones import backbone_from_spec

        backbone = backbone_from_spec(self.spec, device=self.device)
        if backbone.fingerprint != self.fingerprint:
            raise BackboneMismatchError(
                f"backbone: {self.spec.get('name', '?')!r} of fingerprint {self.fingerprint[:12]} is "
                f"{backbone.fingerprint[:12]} in a worker; give every worker the same weights"
            )
        return backbone.with_runtime(self.runtime, self.size)
