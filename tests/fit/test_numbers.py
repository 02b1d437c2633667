"""What a fit holds in memory whatever its limit: the numbers of the members."""

from __future__ import annotations

import gc
import tracemalloc

import numpy as np
import pytest

from inreach_fast import InReaCh
from inreach_fast.fit.limits import NUMBERS_OF_MEMBER

PATCHES, DIM = 400, 4


def peak_of(images: int, *, in_files: bool, max_std: float) -> tuple[int, int]:
    """Members, and the bytes of Python's memory at the peak of a fit of so many images, the rows' not among them."""
    rng = np.random.default_rng(0)
    part = 5 * rng.standard_normal((PATCHES, DIM))
    x = (part + 0.01 * rng.standard_normal((images, PATCHES, DIM))).astype(np.float32)
    limit = 24 * PATCHES * images + 40_000 if in_files else None
    settings = {"assoc_depth": 4, "min_channel_length": 2, "max_channel_std": max_std, "threshold_images": 2}
    model = InReaCh("channels", memory_limit=limit, **settings)
    gc.collect()
    tracemalloc.start()
    try:
        model.fit_descriptors(x, (20, 20))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    members = len(model._state.growth.members)  # type: ignore[union-attr]
    return members, peak - (0 if in_files else 4 * DIM * (members - len(model.nominal_)))


@pytest.mark.parametrize("in_files", [False, True])
@pytest.mark.parametrize("max_std", [5.0, 2.0])  # most members are nominal; few are
def test_a_member_takes_no_more_than_is_promised(in_files: bool, max_std: float) -> None:
    few, few_bytes = peak_of(15, in_files=in_files, max_std=max_std)
    many, many_bytes = peak_of(45, in_files=in_files, max_std=max_std)
    each = (many_bytes - few_bytes) / (many - few)
    assert 30 < each <= NUMBERS_OF_MEMBER
