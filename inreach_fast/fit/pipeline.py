"""The order of a fit: read, test positions, describe the seeds, associate one image after the other, build the model.

Images are processed in the order of their places (`method.arrangement`), copies once.

The descriptors are computed once: an image meets the seed images alone, so that the seeds are kept and the others pass
by. Of each image the patches that joined a channel are kept; the rest is dropped at once (except for the few images
that the threshold is chosen from). Network inputs, members and that rest are in memory within the shares of `Budget`
and in files beyond, so that memory does not grow with the number of images.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..array_types import FloatArray
from ..images.source import ImageSource
from ..kernels import backend_of
from ..method.arrangement import Arrangement, order_of, ranked_images, reference_number
from ..method.association import Associator, members_of
from ..method.channels import MemberRows
from ..method.threshold import sample_images
from ..storage.inputs import InputStore, array_digest, stacked_digests
from ..storage.members import MemberStore
from .associating import associate_images, describe_seeds, gather
from .context import FitContext
from .growth_state import RESERVE
from .image_job import ImageTask
from .limits import check_different, check_enough, check_limit, check_limit_for_images
from .model_building import build_model
from .reading import FitData, PlacedInputs, decide_positions, read_images
from .result import FitResult
from .resuming import configuration


def fit_images(context: FitContext, source: ImageSource) -> FitResult:
    """A whole fit of images; see `InReaCh.fit`."""
    p, report, workspace = context.parameters, context.report, context.workspace
    report.counts.update(images=len(source), skipped=0)
    check_enough(len(source))
    check_limit_for_images(context, len(source))
    workspace.begin(lambda: configuration(context))

    inputs = InputStore(workspace, p.image_size, len(source))
    used, skipped = read_images(context, source, inputs)
    names, digests = [source.names[i] for i in used], inputs.digests
    report.counts.update(skipped=len(skipped), skipped_names=skipped)
    workspace.record_read(names, skipped, digests)
    check_enough(len(inputs))
    check_different(digests, "images", "training images")
    arrangement = Arrangement.of(digests, order_of(p))
    seed_images = context.seed_images(source.names, used, arrangement, digests)

    with report.stage("align"):
        reference = inputs[reference_number(arrangement, seed_images, p.seed_selection)]
        placed = PlacedInputs(inputs, arrangement)
        alignment, positions = decide_positions(placed, p, context.progress, reference=reference)
    training = FitData(
        names=names, digests=digests, arrangement=arrangement, positions=positions, alignment=alignment, inputs=inputs
    )
    with report.stage("describe"):
        seed_rows, grid = describe_seeds(context, training, seed_images)

    count = len(arrangement)
    sampled = sample_images(training.contents, p.threshold_images, p.random_state)
    store = MemberStore(workspace, seed_rows.shape[2], seed_rows.shape[1], count, sampled)
    is_seed, is_sampled = set(seed_images.tolist()), set(sampled.tolist())

    def tasks() -> Iterator[ImageTask]:
        for i in range(store.done, count):
            yield ImageTask(i, None if i in is_seed else training.pixels(i), i in is_sampled, training.name(i))

    associate_images(context, seed_images, seed_rows, training.channels(grid, p), tasks(), store, count)
    del seed_rows
    members = store.members(seed_images)

    def image_rows(image: int, rows: MemberRows) -> FloatArray:
        rest = store.rest.read(*members.rest_span(sampled, image))
        return members.whole_image(image, rows.read(*members.span(image)), rest)

    result = build_model(context, training, grid, members, store.rows, image_rows)
    store.close()
    return result


def fit_rows(context: FitContext, x: FloatArray, grid: tuple[int, int]) -> FitResult:
    """A whole fit of (N, P, D) descriptors; see `InReaCh.fit_descriptors`."""
    p, report = context.parameters, context.report
    n_images, patches, dim = x.shape
    names = [f"x[{i}]" for i in range(n_images)]
    report.counts.update(images=n_images, skipped=0, skipped_names=[])
    check_enough(n_images)
    check_limit(context, context.seed_count(n_images), patches, dim, n_images)
    with report.stage("read"):
        digests = stacked_digests([array_digest(rows) for rows in x])
    check_different(digests, "x", "images' descriptors")
    arrangement = Arrangement.of(digests, order_of(p))
    seed_images = context.seed_images(names, range(n_images), arrangement, digests)
    first, count = arrangement.first, len(arrangement)

    kept = np.sort(ranked_images(digests[first], p.random_state)[: p.threshold_images + RESERVE])
    store = MemberStore(context.workspace, dim, patches, count, kept)
    associator = Associator(seed_images, x, at=first[seed_images], pairs=p.assoc_pairs, backend=backend_of(p))
    is_seed, is_kept = set(seed_images.tolist()), set(kept.tolist())
    found = (
        members_of(associator, i, x[number], is_seed=i in is_seed, whole=i in is_kept)
        for i, number in enumerate(first.tolist())
    )
    gather(context, found, store, count)
    del associator, found
    training = FitData(
        names=names, digests=digests, arrangement=arrangement, kept_images=kept, kept_rest=store.rest.finish()
    )
    return build_model(context, training, grid, store.members(seed_images), store.rows, lambda i, _: x[int(first[i])])
