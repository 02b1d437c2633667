from __future__ import annotations

import re

import numpy as np
import pytest
import reference
from descriptor_sets import shared_patches
from hypothesis import given, settings
from hypothesis import strategies as st
from nominal_rows import NominalRows, select_nominal
from numpy.typing import NDArray

from inreach_fast.errors import NoChannelsError
from inreach_fast.method.association import NO_CHANNEL, Associator
from inreach_fast.method.channels import ChannelFilters, Members, select_members


def nominal(
    x: NDArray[np.float32], seeds: list[int], min_length: int | None, max_std: float | None, pairs: str = "all"
) -> NominalRows:
    associator = Associator(np.array(seeds), x[seeds], pairs=pairs)
    joined = np.stack([associator.associate(i, image) for i, image in enumerate(x)])
    return select_nominal(x.reshape(-1, x.shape[2]), joined, np.array(seeds), min_length=min_length, max_std=max_std)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    seeds=st.sets(st.integers(0, 6), min_size=1, max_size=4),
    min_length=st.sampled_from([None, 0, 2, 3]),
    max_std=st.sampled_from([None, 1.5, 3.0, 5.0]),
    pairs=st.sampled_from(["all", "later"]),
    whole=st.booleans(),
)
def test_equals_the_reference(
    seed: int, seeds: set[int], min_length: int | None, max_std: float | None, pairs: str, whole: bool
) -> None:
    x = shared_patches(7, 6, 5, seed)
    if whole:  # many ties, many duplicates
        x = np.round(x / 4)
    members = reference.associate(x, np.array(sorted(seeds)), pairs)
    kept = reference.filter_channels(
        x.reshape(-1, 5),
        members.seed_image * 6 + members.seed_patch,
        min_length,
        max_std,
        rows=members.image * 6 + members.patch,
    )
    if not kept.keep.any():
        with pytest.raises(NoChannelsError):
            nominal(x, sorted(seeds), min_length, max_std, pairs)
        return
    want = reference.nominal_patches(x, members, min_length, max_std)
    got = nominal(x, sorted(seeds), min_length, max_std, pairs)
    assert np.array_equal(got.rows, want.image_index * 6 + want.patch_index)
    assert np.array_equal(got.channel_seed_image, want.channel_seed_image)
    assert np.array_equal(got.channel_seed_patch, want.channel_seed_patch)
    assert got.counts["channels_living"] == len(kept.channels)
    assert got.counts["nominal"] == len(got.rows)


def test_a_patch_of_two_channels_is_stored_under_its_own_only_while_that_lives() -> None:
    # Two seed images of one patch; image 1's patch joins channel 0, two others as well; channel 1 has it alone.
    rows = np.array([[0.0], [1.0], [0.1], [0.2]], np.float32)
    joined = np.array([[NO_CHANNEL], [0], [0], [0]])
    seeds = np.array([0, 1])
    both = select_nominal(rows, joined, seeds, min_length=None, max_std=None)
    assert both.rows.tolist() == [0, 1, 2, 3]
    assert both.channel_seed_image.tolist() == [0, 1, 0, 0]
    long = select_nominal(rows, joined, seeds, min_length=3, max_std=None)
    assert long.rows.tolist() == [0, 1, 2, 3]
    assert long.channel_seed_image.tolist() == [0, 0, 0, 0]
    assert long.counts["channels_too_short"] == 1


def test_both_filters_off_keeps_every_member() -> None:
    x = shared_patches(5, 4, 3)
    got = nominal(x, [1, 3], None, None)
    members = reference.associate(x, np.array([1, 3]))
    assert set(got.rows.tolist()) == set((members.image * 4 + members.patch).tolist())


def test_no_channel_left_says_which_filter_took_how_many() -> None:
    x = shared_patches(3, 4, 3)
    with pytest.raises(NoChannelsError, match=r"span filter \(min_channel_length=9\) removed 8, the spread .* 0;"):
        nominal(x, [0, 1], 9, 5.0)
    with pytest.raises(NoChannelsError, match=r"span .* removed 0, the spread filter \(max_channel_std=1e-06\) [1-8];"):
        nominal(shared_patches(9, 2, 8), [0], 0, 1e-6)


# ------------------------------------------------------------------------------------------------- true advice


def members_of(lengths: list[int], rows: NDArray[np.float32]) -> tuple[Members, NDArray[np.float32]]:
    """Channels of these lengths: image 0 has a seed patch for each, the other images join in turn."""
    images, patches = max(lengths), len(lengths)
    joins = [[c for c, n in enumerate(lengths) if image < n] for image in range(images)]
    counts = np.array([len(j) for j in joins])
    patch = np.concatenate(joins)
    joined = np.concatenate([np.full(patches, NO_CHANNEL), *joins[1:]])
    return Members(np.array([0]), patches, counts, patch, joined), rows[: len(patch)]


@settings(max_examples=100, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=5),
    min_length=st.integers(0, 45),
    max_std=st.sampled_from([None, 0.5, 2.0, 5.0]),
    about_mean=st.booleans(),
    seed=st.integers(0, 999),
)
def test_what_an_error_advises_leaves_a_channel(
    lengths: list[int], min_length: int, max_std: float | None, about_mean: bool, seed: int
) -> None:
    random = np.random.default_rng(seed)
    members, rows = members_of(lengths, random.standard_normal((250, 64)).astype(np.float32))
    filters = ChannelFilters(min_length, max_std, "auto", about_mean)
    message = ""
    try:
        select_members(members, rows, filters, memory=0)
    except NoChannelsError as error:
        message = str(error)
    if message:
        found = re.search(r"lower min_channel_length \(--min-channel-length\) to (\d+)", message)
        lower = int(found[1]) if found else min_length
        assert found is None or lower < min_length
        off = "switch the spread filter off" in message
        assert found or off
        select_members(members, rows, ChannelFilters(lower, None if off else max_std, "auto", about_mean), memory=0)
        if len(members.counts) <= min_length:
            assert f"give more than {min_length} different images" in message


def test_even_channels_are_dropped_by_the_literal_rule_only() -> None:
    # In many dimensions the members' distances to their mean are nearly equal.
    members, rows = members_of([8, 8, 8], np.random.default_rng(0).standard_normal((24, 512)).astype(np.float32))
    assert select_members(members, rows, ChannelFilters(3, 5.0, about_mean=True), memory=0).nominal.all()
    with pytest.raises(NoChannelsError, match=r"switch the spread filter off \(spread_filter=False"):
        select_members(members, rows, ChannelFilters(3, 5.0), memory=0)


def test_a_member_far_beyond_the_others_is_dropped_about_the_mean_too() -> None:
    rows = np.random.default_rng(0).standard_normal((40, 512)).astype(np.float32)
    rows[17] *= 9
    members, rows = members_of([40], rows)
    kept = select_members(members, rows, ChannelFilters(3, 5.0, about_mean=True), memory=0).nominal
    assert np.flatnonzero(~kept).tolist() == [17]
