from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from inreach_fast.method.arrangement import (
    CONTENT,
    EVERY,
    GIVEN,
    Arrangement,
    choose_seeds,
    copies,
    order_of,
    ranked_images,
    reference_number,
)
from inreach_fast.parameters import Parameters


def digests_of(contents: str) -> NDArray[np.uint8]:
    return np.stack([np.frombuffer(hashlib.sha256(c.encode()).digest(), np.uint8) for c in contents])


@given(contents=st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=20), data=st.data())
def test_places_by_content_are_those_of_any_order(contents: list[str], data: st.DataObject) -> None:
    shuffled = data.draw(st.permutations(contents))
    a, b = (Arrangement.of(digests_of("".join(c)), CONTENT) for c in (contents, shuffled))
    assert [contents[i] for i in a.first] == [shuffled[i] for i in b.first]
    assert sorted(set(contents)) == sorted(contents[i] for i in a.first)
    assert [contents[i] for i in a.originals] == contents
    assert a.originals.tolist() == [contents.index(c) for c in contents]
    assert a.is_valid(len(contents))


def test_places_in_the_order_given_and_of_every_image() -> None:
    given_order = Arrangement.of(digests_of("bab"), GIVEN)
    assert given_order.place.tolist() == [0, 1, 0]
    assert given_order.first.tolist() == [0, 1]
    every = Arrangement.of(digests_of("bab"), EVERY)
    assert every.place.tolist() == [0, 1, 2]
    assert copies(given_order, ["x", "y", "z"]) == [("z", "x")]
    assert copies(every, ["x", "y", "z"]) == []


@pytest.mark.parametrize("place", [[0, 2], [1, 1], [-1, 0], [0, 1, 2]])
def test_places_that_cannot_be(place: list[int]) -> None:
    assert not Arrangement(CONTENT, np.array(place)).is_valid(2)


def test_only_pairs_of_later_images_need_the_order_given() -> None:
    assert [order_of(Parameters.from_preset(name)) for name in ("default", "paper", "reference")] == [
        CONTENT,
        CONTENT,
        GIVEN,
    ]


@given(order=st.permutations(range(20)), random_state=st.integers(0, 2**32 - 1))
def test_seeds_are_drawn_by_content(order: list[int], random_state: int) -> None:
    letters = "abcdefghijklmnopqrst"
    shuffled = "".join(letters[i] for i in order)
    plain, moved = digests_of(letters), digests_of(shuffled)
    a, b = Arrangement.of(plain, CONTENT), Arrangement.of(moved, CONTENT)
    seeds = choose_seeds(a, plain, 5, "random", random_state)
    assert np.array_equal(seeds, choose_seeds(b, moved, 5, "random", random_state))
    assert len(set(seeds.tolist())) == 5
    assert (np.diff(seeds) > 0).all()
    first = {shuffled[b.first[i]] for i in choose_seeds(b, moved, 5, "first", random_state)}
    assert first == set(shuffled[:5])


def test_seeds_are_different_images_and_no_more_than_there_are() -> None:
    digests = digests_of("aabbcc")
    arrangement = Arrangement.of(digests, CONTENT)
    for selection in ("first", "random"):
        assert choose_seeds(arrangement, digests, 10, selection, 3).tolist() == [0, 1, 2]
    assert {"aabbcc"[arrangement.first[i]] for i in choose_seeds(arrangement, digests, 2, "first", 0)} == {"a", "b"}


def test_draws_for_two_purposes_are_independent() -> None:
    digests = digests_of("abcdefghijklmnopqrst")
    assert ranked_images(digests, 0).tolist() != ranked_images(digests, 0, b"seeds").tolist()
    assert ranked_images(digests, 0).tolist() != ranked_images(digests, 1).tolist()


def test_the_image_that_others_are_rotated_to_is_a_seed_image() -> None:
    digests = digests_of("dcba")
    arrangement = Arrangement.of(digests, CONTENT)
    seeds = choose_seeds(arrangement, digests, 3, "first", 0)
    assert reference_number(arrangement, seeds, "first") == 0
    assert reference_number(arrangement, seeds, "random") == arrangement.first[seeds[0]]
    assert reference_number(Arrangement.of(digests, EVERY), np.array([2, 3]), "random") == 0
