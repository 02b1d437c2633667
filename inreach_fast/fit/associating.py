"""The seed images' descriptors, and the other images' association with them (paper, sections 3.1 and 3.2)."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Iterator
from dataclasses import replace

import numpy as np

from ..array_types import FloatArray, IndexArray
from ..kernels import get_gpu_memory_limit
from ..method.association import ImageMembers
from ..method.descriptors import DescriptorSpace, described_rows, in_memory
from ..method.projection import Projection
from ..storage.members import MemberStore
from .context import FitContext
from .image_job import ImageJob, ImageTask
from .reading import FitData


def describe_seeds(
    context: FitContext, training: FitData, seed_images: IndexArray
) -> tuple[FloatArray, tuple[int, int], FitData]:
    """Rows of the seed images (places), (S, P, D); the grid; and the data with the projection found from them."""
    describer, p = context.describer, context.parameters
    out: FloatArray | None = None
    grid, space, projected = (0, 0), DescriptorSpace(), False
    for slot, image in enumerate(seed_images.tolist()):
        raw = in_memory(described_rows(describer, training.pixels(image), DescriptorSpace(), training.name(image)))
        if out is None:
            grid = describer.grid(len(raw))
            projected = p.pca_dim is not None and p.pca_dim < raw.shape[1]
            space = training.space(grid, p)
            if projected:
                space = DescriptorSpace(cells=space.cells)
        rows = space(raw)
        if out is None:
            out = np.empty((len(seed_images), *rows.shape), np.float32)
        out[slot] = rows
        context.progress("describe", slot + 1, len(seed_images))
    assert out is not None
    if projected:
        assert p.pca_dim is not None
        training = replace(training, projection=Projection.fit(out.reshape(-1, out.shape[2]), p.pca_dim))
        space = replace(training.space(grid, p), cells=None)  # of the rows of the region of interest
        out = np.stack([space(raw) for raw in out])
    return out, grid, training


def associate_images(
    context: FitContext,
    seed_images: IndexArray,
    seed_rows: FloatArray,
    space: DescriptorSpace,
    tasks: Iterable[ImageTask],
    store: MemberStore,
    total: int,
) -> None:
    """Describes images and lets their patches join channels, on the executor; ``total`` images with those before."""
    import torch

    job = ImageJob(
        seed_images=seed_images,
        seed_rows=seed_rows,
        space=space,
        parameters=context.parameters,
        describer=context.describer,
        torch_threads=torch.get_num_threads(),
        gpu_memory=get_gpu_memory_limit(),
    )
    gather(context, context.executor.run(job, tasks), store, total)


def gather(context: FitContext, results: Iterator[ImageMembers], store: MemberStore, total: int) -> None:
    """Stores the results; their wall-clock time is divided between the stages as the workers' own time."""
    begin = time.perf_counter()
    describing = associating = 0.0
    try:
        for found in results:
            describing += found.seconds[0]
            associating += found.seconds[1]
            store.append(found)
            context.progress("associate", store.done, total)
    finally:
        if isinstance(results, Generator):
            results.close()  # ends the workers at once after an error
    wall = time.perf_counter() - begin
    share = describing / (describing + associating) if describing else 0.0
    seconds = context.report.seconds
    if describing:
        seconds["describe"] = seconds.get("describe", 0.0) + wall * share
    seconds["associate"] = wall * (1.0 - share)
