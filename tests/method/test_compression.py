"""What compression promises: distances never shrink, and grow by at most epsilon; for every query."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reference
from descriptor_sets import shared_patches
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kernel_cases import FAMILIES
from numpy.typing import NDArray

import inreach_fast
from inreach_fast import InReaCh, kernels
from inreach_fast.errors import ModelCorruptError, NotFittedError, ParameterError
from inreach_fast.kernels import available_backends
from inreach_fast.method import compression
from inreach_fast.method.compression import Compression, certified, cover, cover_of_size, greatest_within
from inreach_fast.method.nominal_model import NominalModel

Rows = NDArray[np.float32]
Family = Callable[[np.random.Generator, int, int], Rows]

fuzz = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


def exact_square(x: Rows, y: Rows) -> Fraction:
    """|x - y|^2 of the float32 values, without any rounding."""
    return sum(((Fraction(float(a)) - Fraction(float(b))) ** 2 for a, b in zip(x, y, strict=True)), Fraction(0))


def covers(rows: Rows, kept: NDArray[np.int64], epsilon: float) -> bool:
    """Whether each row has a kept one within epsilon, in exact arithmetic."""
    nearest, _ = reference.nearest(rows, rows[kept])
    return all(exact_square(x, rows[kept[j]]) <= Fraction(epsilon) ** 2 for x, j in zip(rows, nearest, strict=True))


def leaders(rows: Rows, epsilon: float) -> list[int]:
    """The definition: a row is kept when no earlier kept one is within epsilon."""
    limit, kept = greatest_within(epsilon, rows.shape[1]), []
    for i in range(len(rows)):
        if not kept or (reference.sq_distance(rows[kept], rows[i]) > limit).all():
            kept.append(i)
    return kept


def nominal(rows: Rows, seed: int = 0) -> NominalModel:
    random = np.random.default_rng(seed)
    n = len(rows)
    return NominalModel(
        rows,
        np.sort(random.integers(0, 5, n)),
        np.arange(n, dtype=np.int64),
        random.integers(0, 3, n),
        random.integers(0, 9, n),
    )


def scale_of(rows: Rows) -> float:
    """A distance that occurs between the rows."""
    distance = reference.pairwise_sq_distance(rows[:30], rows[:30])
    return math.sqrt(float(np.median(distance)))


# --------------------------------------------------------------------------------------------- the guarantee


@fuzz
@given(
    family=st.sampled_from(FAMILIES),
    n=st.sampled_from([1, 2, 3, 17, 60]),
    dim=st.sampled_from([1, 3, 16, 40]),
    share=st.sampled_from([0.0, 1e-6, 0.3, 0.9, 1.0, 5.0]),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_cover_is_one_in_exact_arithmetic(family: Family, n: int, dim: int, share: float, seed: int) -> None:
    rows = family(np.random.default_rng(seed), n, dim)
    epsilon = share * scale_of(rows)
    kept = cover(rows, epsilon)
    assert covers(rows, kept, epsilon)
    assert kept.tolist() == sorted(set(kept.tolist()))


@fuzz
@given(
    family=st.sampled_from(FAMILIES),
    n=st.sampled_from([2, 30, 80]),
    share=st.sampled_from([0.0, 0.2, 0.8, 1.5]),
    seed=st.integers(0, 2**32 - 1),
)
def test_distances_never_shrink_and_grow_by_at_most_epsilon(family: Family, n: int, share: float, seed: int) -> None:
    random = np.random.default_rng(seed)
    rows = family(random, n, 24)
    epsilon = share * scale_of(rows)
    before = nominal(rows)
    after = before.compress(epsilon)
    queries = np.concatenate([family(random, 20, 24), rows[:10], -rows[:5]])
    full = kernels.nearest(queries, before.bank).sq_distance
    less = kernels.nearest(queries, after.bank).sq_distance
    assert (less >= full).all()
    # As reported: each squared distance is rounded to float32, and each root once more.
    usable = np.isfinite(less) & (less > 1e-36)
    step = 1e-6 * np.sqrt(less[usable].astype(np.float64))
    assert (np.sqrt(less[usable].astype(np.float64)) <= np.sqrt(full[usable].astype(np.float64)) + epsilon + step).all()


def confirmed(rows: Rows, random: np.random.Generator) -> NominalModel:
    """A model whose confirmation distances are of the size of its distances; some are 0, some infinite."""
    distance = reference.to_float32(reference.sq_distance(rows, rows[random.permutation(len(rows))]))
    floor = np.abs(distance * random.choice(np.float32([0.0, 0.3, 1.0, 2.0]), len(rows)))
    floor[random.random(len(rows)) < 0.1] = np.inf
    return replace(nominal(rows), confirmation=np.nan_to_num(floor, nan=0.0, posinf=np.inf))


@fuzz
@given(
    family=st.sampled_from(FAMILIES),
    n=st.sampled_from([1, 2, 30, 80]),
    share=st.sampled_from([0.0, 0.2, 0.8, 1.5, None]),
    seed=st.integers(0, 2**32 - 1),
)
def test_scores_by_reachability_change_by_at_most_epsilon(
    family: Family, n: int, share: float | None, seed: int
) -> None:
    random = np.random.default_rng(seed)
    with np.errstate(over="ignore", invalid="ignore"):
        before = confirmed(family(random, n, 24), random)
    rows, floor = before.patches, before.confirmation
    assert floor is not None
    after = before.compress(to=0.4) if share is None else before.compress(share * scale_of(rows))
    assert after.compression is not None
    assert after.confirmation is not None
    kept = after.patch_index  # the model's patch numbers are its rows
    place, _ = reference.nearest(rows, rows[kept])
    least = np.full(len(kept), np.inf, np.float32)
    np.minimum.at(least, place, floor)
    assert np.array_equal(after.confirmation, least)

    queries = np.concatenate([family(random, 20, 24), rows[:10], -rows[:5]])
    _, full = reference.nearest(queries, rows, 1, None, None, floor)
    found = kernels.nearest(queries, after.bank).sq_distance
    assert np.array_equal(found, reference.nearest(queries, rows[kept], 1, None, None, least)[1])
    if after.compression.epsilon == 0:
        assert np.array_equal(found, full)
    usable = np.isfinite(found) & np.isfinite(full) & (found > 1e-36) & (full > 1e-36)
    roots, less = (np.sqrt(values[usable].astype(np.float64)) for values in (full, found))
    assert (np.abs(less - roots) <= after.compression.epsilon + 1e-6 * np.maximum(less, roots)).all()


def test_both_sides_of_the_bound_are_reached() -> None:
    # The second patch goes, and the first one, that stands for it, is believed as it was.
    rows = np.float32([[0.0], [1.0], [9.0]])
    model = NominalModel(rows, *(np.arange(3),) * 4, confirmation=np.float32([100.0, 4.0, 4.0]))
    small = model.compress(1.0 + 1e-12)
    assert small.patches.ravel().tolist() == [0.0, 9.0]
    assert small.confirmation is not None
    assert small.confirmation.tolist() == [4.0, 4.0]
    assert small.channel_seed_patch.tolist() == [0, 2]
    queries = np.float32([[4.0], [-3.0]])
    assert np.sqrt(kernels.nearest(queries, model.bank).sq_distance).tolist() == [3.0, 4.0]
    assert np.sqrt(kernels.nearest(queries, small.bank).sq_distance).tolist() == [4.0, 3.0]


def test_a_growth_of_epsilon_is_reached_and_not_exceeded() -> None:
    rows = np.array([[0.0], [1.0], [2.0]], np.float32)
    kept = nominal(rows).compress(1.0001)
    assert kept.patches.tolist() == [[0.0], [2.0]]
    far = kernels.nearest(np.array([[1.0]], np.float32), kept.bank).sq_distance
    assert far.tolist() == [1.0]


def test_what_is_a_hair_farther_than_epsilon_stays() -> None:
    rows = np.array([[0.0], [1.0]], np.float32)
    for epsilon, kept in ((math.nextafter(1.0, 0), 2), (1.0, 2), (1 + 1e-13, 1)):
        assert len(cover(rows, epsilon)) == kept
    # float32 could not tell these from one: r decides, not its rounding.
    near = np.array([[0, 0], [1, 2.0**-14]], np.float32)
    assert len(cover(near, math.sqrt(1 + 2.0**-28) * (1 - 1e-12))) == 2
    assert len(cover(near, math.sqrt(1 + 2.0**-28) * (1 + 1e-12))) == 1


@pytest.mark.parametrize("dim", [1, 16, 1026, 100_000])
def test_limits_allow_for_the_rounding_of_r(dim: int) -> None:
    # The greatest error that docs/search.md's (1) allows, against the guarantee's favour.
    error = (Fraction(dim, 16) + 12) / 2**53
    for epsilon in (1e-30, 0.1, 1 / 3, 1.0, 7.3e20):
        assert Fraction(greatest_within(epsilon, dim)) / (1 - error) <= Fraction(epsilon) ** 2
        r = 1.7 * epsilon
        assert Fraction(certified(r, dim)) ** 2 >= Fraction(r) / (1 - error)
        assert greatest_within(certified(r, dim) * (1 + 4 * float(error) + 1e-13), dim) >= r
    assert certified(0.0, dim) == 0.0
    assert greatest_within(1e-200, dim) == 0.0
    assert greatest_within(1e200, dim) == math.inf


# -------------------------------------------------------------------------------------------- which are kept


@fuzz
@given(
    family=st.sampled_from(FAMILIES),
    n=st.sampled_from([1, 2, 40, 150]),
    share=st.sampled_from([1e-6, 0.3, 0.9]),
    batch=st.sampled_from([1, 7, 64]),
    tail=st.sampled_from([1, 10, 1000]),
    seed=st.integers(0, 2**32 - 1),
)
def test_kept_are_the_leaders_whatever_the_batches(
    monkeypatch: pytest.MonkeyPatch, family: Family, n: int, share: float, batch: int, tail: int, seed: int
) -> None:
    rows = family(np.random.default_rng(seed), n, 17)
    epsilon = share * scale_of(rows)
    monkeypatch.setattr(compression, "_BATCH", batch)
    monkeypatch.setattr(compression, "_LEAST_TAIL", tail)
    if epsilon > 0:
        assert cover(rows, epsilon).tolist() == leaders(rows, epsilon)


@pytest.mark.parametrize("backend", available_backends())
@pytest.mark.parametrize("threads", [1, 3])
def test_backend_and_threads_change_nothing(backend: str, threads: int) -> None:
    rows = shared_patches(12, 100, 20, seed=4).reshape(-1, 20)
    before = inreach_fast.get_num_threads()
    inreach_fast.set_num_threads(threads)
    try:
        kept = cover(rows, 2.0, backend=backend)
        sized, epsilon = cover_of_size(rows, 300, backend=backend)
    finally:
        inreach_fast.set_num_threads(before)
    assert kept.tolist() == leaders(rows, 2.0)
    want, same = cover_of_size(rows, 300)
    assert (sized.tolist(), epsilon) == (want.tolist(), same)


@fuzz
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 50))
def test_epsilon_zero_removes_duplicates_and_nothing_else(seed: int, n: int) -> None:
    rows = np.random.default_rng(seed).integers(-1, 2, (n, 3)).astype(np.float32) * np.float32(1e-40)
    rows[rows == 0] *= np.float32(-1)  # half the zeros are negative ones
    kept = cover(rows, 0.0)
    first: dict[tuple[float, ...], int] = {}
    for i, row in enumerate((rows + np.float32(0)).tolist()):
        first.setdefault(tuple(row), i)
    assert kept.tolist() == sorted(first.values())


@fuzz
@given(
    family=st.sampled_from(FAMILIES),
    n=st.sampled_from([1, 2, 40, 120]),
    share=st.floats(0.01, 0.99),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_size_is_kept_and_its_epsilon_holds(family: Family, n: int, share: float, seed: int) -> None:
    rows = family(np.random.default_rng(seed), n, 12)
    model = nominal(rows)
    small = model.compress(to=share)
    assert small.compression is not None
    assert 1 <= len(small) <= max(1, int(share * n))
    assert (small.compression.kept, small.compression.of) == (len(small), n)
    kept = np.flatnonzero(np.isin(model.patch_index, small.patch_index))
    assert covers(rows, kept, small.compression.epsilon)
    if len(small) < max(1, int(share * n)):
        assert small.compression.epsilon == 0.0  # only duplicates were left to take


def test_more_patches_take_less_epsilon() -> None:
    model = nominal(shared_patches(10, 60, 16, seed=2).reshape(-1, 16))
    found = [model.compress(to=size).compression for size in (5, 50, 200, 400, 599, 600)]
    epsilons = [one.epsilon for one in found if one is not None]
    assert epsilons == sorted(epsilons, reverse=True)
    assert epsilons[0] > epsilons[-2] > epsilons[-1] == 0
    # No worse than what this size costs by far: the leaders at this epsilon are hardly more.
    assert len(model.compress(epsilons[2])) <= 1.1 * 200


def test_duplicates_go_before_anything_is_lost() -> None:
    rows = np.repeat(shared_patches(2, 20, 6).reshape(-1, 6), 3, axis=0)
    small = nominal(rows).compress(to=40)
    assert small.compression == Compression(0.0, 40, 120)
    assert small.patch_index.tolist() == list(range(0, 120, 3))


# --------------------------------------------------------------------------------------------- the model


def test_provenance_and_order_follow() -> None:
    model = nominal(shared_patches(8, 30, 10).reshape(-1, 10), seed=3)
    small = model.compress(1.5)
    kept = small.patch_index  # the model's patch numbers are its rows
    assert 0 < len(kept) < len(model)
    assert (np.diff(kept) > 0).all()
    for name in ("patches", "image_index", "channel_seed_image", "channel_seed_patch"):
        assert np.array_equal(getattr(small, name), getattr(model, name)[kept]), name
    assert model.compression is None


def test_epsilons_of_repeated_compression_add_up() -> None:
    model = nominal(shared_patches(8, 30, 10).reshape(-1, 10))
    twice = model.compress(1.0).compress(0.5)
    assert twice.compression is not None
    assert 1.5 <= twice.compression.epsilon <= 1.5 + 1e-12
    assert twice.compression.of == 240
    assert covers(model.patches, twice.patch_index, twice.compression.epsilon)


def test_epsilons_that_are_nothing_or_beyond_all_numbers_add_up_as_well() -> None:
    model = nominal(shared_patches(8, 30, 10).reshape(-1, 10))
    for first, second, total in ((0.0, 0.0, 0.0), (0.0, 0.7, 0.7), (0.7, 0.0, 0.7), (1e308, 1e308, sys.float_info.max)):
        twice = model.compress(first).compress(second)
        assert twice.compression is not None
        assert twice.compression.epsilon == total
        assert Compression.from_dict(json.loads(json.dumps(twice.compression.as_dict()))) == twice.compression


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({}, "exactly one"),
        ({"epsilon": 1.0, "to": 3}, "exactly one"),
        ({"epsilon": -1e-9}, "epsilon: "),
        ({"epsilon": math.nan}, "epsilon: "),
        ({"epsilon": math.inf}, "epsilon: "),
        ({"epsilon": "1"}, "epsilon: "),
        ({"epsilon": True}, "epsilon: "),
        ({"epsilon": [1.0]}, "epsilon: "),
        ({"to": 0}, "to: "),
        ({"to": -3}, "to: "),
        ({"to": 0.0}, "to: "),
        ({"to": 1.0}, "to: "),
        ({"to": 2.5}, "to: "),
        ({"to": math.nan}, "to: "),
        ({"to": True}, "to: "),
        ({"to": "3"}, "to: "),
    ],
    ids=str,
)
def test_arguments_that_are_none(arguments: dict[str, Any], match: str) -> None:
    with pytest.raises(ParameterError, match=match):
        nominal(shared_patches(2, 3, 4).reshape(-1, 4)).compress(**arguments)


# ------------------------------------------------------------------------------------------ the estimator


@pytest.fixture(scope="module", params=["squared_l2", "l2"])
def model(request: pytest.FixtureRequest) -> InReaCh:
    x = shared_patches(10, 36, 8, seed=5)
    return InReaCh("channels", image_size=24, smoothing_sigma=1.5, distance=request.param).fit_descriptors(x, (6, 6))


def test_scores_grow_by_no_more_than_is_said(model: InReaCh) -> None:
    queries = shared_patches(6, 36, 8, seed=5) + np.float32(0.5)
    full = model.score_descriptors(queries)
    for epsilon in (0.3, 1.0, 3.0):
        small = model.compress(epsilon)
        assert small is not model
        assert small.threshold_ == model.threshold_
        less = small.score_descriptors(queries)
        assert (less.patch_scores >= full.patch_scores).all()
        assert (less.score >= full.score).all()
        squared = model.parameters.distance == "squared_l2"
        bound = (np.sqrt(full.score) + epsilon) ** 2 if squared else full.score + epsilon
        assert (less.score <= bound * (1 + 1e-5)).all()
        assert (less.is_anomalous >= full.is_anomalous).all()
    assert model.nominal_.compression is None


def test_training_scores_are_the_compressed_models_own() -> None:
    x = shared_patches(10, 36, 8, seed=5)
    model = InReaCh("channels", image_size=24).fit_descriptors(x, (6, 6))
    small = model.compress(2.0)
    assert (small.training_scores() > model.training_scores()).any()
    assert np.array_equal(small.training_scores(), small.training_scores(x))
    assert np.array_equal(small.threshold_scores_, model.threshold_scores_)


def test_the_report_and_the_saved_model_tell_of_it(model: InReaCh, tmp_path: Path) -> None:
    small = model.compress(to=0.5)
    made = small.nominal_.compression
    assert made is not None
    assert small.report_["compression"] == made.as_dict()
    assert "compression" not in list(model.report_)
    small.save(tmp_path / "m")
    loaded = InReaCh.load(tmp_path / "m")
    assert loaded.nominal_.compression == made
    assert loaded.report_["compression"] == made.as_dict()
    assert np.array_equal(loaded.nominal_.patches, small.nominal_.patches)
    queries = shared_patches(1, 36, 8, seed=6)
    assert np.array_equal(loaded.score_descriptors(queries).anomaly_map, small.score_descriptors(queries).anomaly_map)
    again = loaded.compress(0.1).nominal_.compression
    assert again is not None
    assert again.of == len(model.nominal_)
    assert again.epsilon > made.epsilon


@pytest.mark.parametrize("distance", ["squared_l2", "l2"])
@pytest.mark.parametrize("score", ["reachability", "nearest"])
def test_models_of_all_patches(score: str, distance: str, tmp_path: Path) -> None:
    x = shared_patches(10, 36, 8, seed=5)
    x[3, :4] += 4.0
    model = InReaCh(association="all", score=score, distance=distance, image_size=24).fit_descriptors(x, (6, 6))
    queries = np.concatenate([x[3:5], shared_patches(4, 36, 8, seed=6) + np.float32(0.5)])
    full = model.score_descriptors(queries)
    lower, changed = [], 0
    for epsilon in (0.0, 1.0, 3.0):
        small = model.compress(epsilon)
        assert small.threshold_ == model.threshold_
        less = small.score_descriptors(queries)
        roots = [np.sqrt(s) if distance == "squared_l2" else s for s in (full.score, less.score)]
        assert (np.abs(roots[1] - roots[0]) <= epsilon * (1 + 1e-6)).all()
        lower.append(bool((less.patch_scores < full.patch_scores).any()))
        changed += not np.array_equal(less.score, full.score)
    assert changed == 2
    assert lower[0] is False
    assert lower[2] is (score == "reachability")

    small.save(tmp_path / "m")
    loaded = InReaCh.load(tmp_path / "m")
    assert np.array_equal(loaded.nominal_.confirmation, small.nominal_.confirmation)
    assert np.array_equal(loaded.score_descriptors(queries).anomaly_map, less.anomaly_map)
    assert not loaded.can_grow
    again = loaded.compress(to=0.3)
    assert again.nominal_.compression is not None
    roots = [
        np.sqrt(s) if distance == "squared_l2" else s for s in (full.score, again.score_descriptors(queries).score)
    ]
    assert (np.abs(roots[1] - roots[0]) <= again.nominal_.compression.epsilon * (1 + 1e-6)).all()


@pytest.mark.parametrize(
    "garbled", [{}, {"epsilon": -1, "kept": 1, "of": 2}, {"epsilon": 0, "kept": 3, "of": 2}, 5, {"epsilon": "x"}]
)
def test_a_garbled_record_is_a_corrupt_model(model: InReaCh, tmp_path: Path, garbled: Any) -> None:
    from inreach_fast.storage import model_file

    model.compress(0.5).save(tmp_path / "m")
    meta, arrays = model_file.load_file(tmp_path / "m")
    model_file.save_file(tmp_path / "bad", {**meta, "compression": garbled}, arrays)
    with pytest.raises(ModelCorruptError):
        InReaCh.load(tmp_path / "bad")


def test_a_score_without_the_guarantee_and_no_fit() -> None:
    x = shared_patches(6, 16, 8)
    other = InReaCh("channels", image_size=16, score="mahalanobis").fit_descriptors(x, (4, 4))
    with pytest.raises(ParameterError, match="mahalanobis"):
        other.compress(0.1)
    with pytest.raises(NotFittedError):
        InReaCh("channels").compress(0.1)
