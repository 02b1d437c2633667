"""The order of a fit: read, test positions, describe the seeds, associate one image after the other, build the model.

Images are processed in the order of their places (`method.arrangement`), copies once.

The descriptors are computed once: an image meets the seed images alone, so that the seeds are kept and the others pass
by. Of each image the patches that joined a channel are kept; the rest is dropped at once (except for the few images
that the threshold is chosen from). With association="all" there are no seed images and every patch is kept; the images
that are described first are those from which the projection is found. Network inputs, members and that rest are in
memory within the shares of `Budget` and in files beyond. What grows with the number of images in any case is a member's
numbers (`limits.NUMBERS_OF_MEMBER`), a few hundred bytes an image, and its thumbnail of 2 to 4 KB.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ..array_types import BoolArray, FloatArray, IndexArray, UInt8Array
from ..errors import ParameterError
from ..images.source import ImageSource
from ..kernels import backend_of
from ..method.arrangement import Arrangement, order_of, ranked_images, reference_number
from ..method.association import Associator, members_of, no_members
from ..method.channels import MemberRows
from ..method.descriptors import described_rows, in_memory
from ..method.projection import SAMPLE_IMAGES
from ..method.reachability import check_witnesses
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

    inputs = InputStore(workspace, p.input_size, len(source))
    used, skipped = read_images(context, source, inputs)
    names, digests = [source.names[i] for i in used], inputs.digests
    report.counts.update(skipped=len(skipped), skipped_names=skipped)
    workspace.record_read(names, skipped, digests)
    check_enough(len(inputs))
    check_different(digests, "images", "training images")
    arrangement = Arrangement.of(digests, order_of(p))
    choice = _Choice.of(context, source.names, used, arrangement, digests)

    with report.stage("align"):
        reference = inputs[reference_number(arrangement, choice.described, p.seed_selection)]
        placed = PlacedInputs(inputs, arrangement)
        alignment, positions = decide_positions(placed, p, context.progress, reference=reference)
    training = FitData(
        names=names,
        digests=digests,
        arrangement=arrangement,
        positions=positions,
        alignment=alignment,
        inputs=inputs,
        sizes=inputs.sizes,
    )
    with report.stage("describe"):
        described = choice.described
        rows_of_described, grid, training = describe_seeds(context, training, described)

    count, space = len(arrangement), training.space(grid, p)
    store = MemberStore(workspace, rows_of_described.shape[2], rows_of_described.shape[1], count, choice.whole)
    is_described, is_whole = set(described.tolist()), set(choice.whole.tolist())

    def tasks() -> Iterator[ImageTask]:
        for i in range(store.done, count):
            left_out = not choice.kept[i]
            pixels = None if left_out or i in is_described else training.pixels(i)
            yield ImageTask(i, pixels, i in is_whole, training.name(i), left_out)

    associate_images(context, described, rows_of_described, space, tasks(), store, count)
    del rows_of_described
    members, training = store.members(choice.seeds), training.finished()

    def image_rows(image: int, rows: MemberRows) -> FloatArray:
        if not choice.kept[image]:
            return in_memory(described_rows(context.describer, training.pixels(image), space, training.name(image)))
        stored = rows.read(*members.span(image))
        if p.association == "all":
            return stored
        return members.whole_image(image, stored, store.rest.read(*members.rest_span(choice.whole, image)))

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
    choice = _Choice.of(context, names, range(n_images), arrangement, digests, reserve=RESERVE)
    first, count = arrangement.first, len(arrangement)

    store = MemberStore(context.workspace, dim, patches, count, choice.whole)
    associator = None
    if p.association == "seeds":
        associator = Associator(choice.seeds, x, at=first[choice.seeds], pairs=p.assoc_pairs, backend=backend_of(p))
    is_seed, is_whole = set(choice.seeds.tolist()), set(choice.whole.tolist())
    found = (
        members_of(associator, i, x[number], is_seed=i in is_seed, whole=i in is_whole)
        if choice.kept[i]
        else no_members(dim)
        for i, number in enumerate(first.tolist())
    )
    gather(context, found, store, count)
    del associator, found
    training = FitData(
        names=names, digests=digests, arrangement=arrangement, kept_images=choice.whole, kept_rest=store.rest.finish()
    )
    return build_model(context, training, grid, store.members(choice.seeds), store.rows, lambda i, _: x[int(first[i])])


@dataclass(frozen=True, eq=False)
class _Choice:
    """Places of images that play a part of their own.

    Attributes:
        seeds: int64 (S,), ascending; none with association="all".
        described: those that are described first: the seeds, or the sample that the projection is found from.
        whole: int64, ascending: those of which the patches that are no members are kept as well, for the threshold.
        kept: bool (M,), those whose patches can be members.
    """

    seeds: IndexArray
    described: IndexArray
    whole: IndexArray
    kept: BoolArray

    @classmethod
    def of(
        cls,
        context: FitContext,
        names: Sequence[str],
        used: Sequence[int],
        arrangement: Arrangement,
        digests: UInt8Array,
        *,
        reserve: int = 0,
    ) -> _Choice:
        """``reserve``: images kept whole beyond the threshold's sample; the others as in `FitContext.seed_images`."""
        p, contents = context.parameters, digests[arrangement.first]
        if p.association == "seeds":
            seeds = context.seed_images(names, used, arrangement, digests)
            whole = sample_images(contents, p.threshold_images + reserve, p.random_state)
            return cls(seeds, seeds, whole, np.ones(len(arrangement), dtype=bool))
        if context.seeds is not None:
            raise ParameterError('seeds: association="all" has no seed images; leave seeds out')
        none, sample = np.empty(0, np.int64), SAMPLE_IMAGES if p.pca_dim is not None else 1
        kept = np.zeros(len(arrangement), dtype=bool)
        kept[ranked_images(contents, p.random_state, b"bank")[: p.bank_images]] = True
        check_witnesses(int(kept.sum()), p.witnesses)
        return cls(none, ranked_images(contents, p.random_state, b"projection")[:sample], none, kept)
