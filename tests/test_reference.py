"""The reference itself, on cases small enough to work out by hand, and against torch's own operations."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import reference


def test_sixteen_lanes_in_a_fixed_tree() -> None:
    rng = np.random.default_rng(1)
    for dim in (1, 15, 16, 17, 40):
        x, y = rng.normal(size=dim), rng.normal(size=dim)
        lanes = [0.0] * 16
        for i in range(dim):
            lanes[i % 16] += (x[i] - y[i]) * (x[i] - y[i])
        for width in (8, 4, 2, 1):
            lanes = [lanes[i] + lanes[i + width] for i in range(width)]
        assert reference.sq_distance(x, y) == lanes[0]


def test_distances_are_close_to_the_real_ones() -> None:
    rng = np.random.default_rng(2)
    a, b = (rng.normal(size=(n, 33)).astype(np.float32) for n in (3, 4))
    for i, row in enumerate(reference.pairwise_sq_distance(a, b)):
        for j, value in enumerate(row):
            pairs = zip(a[i].tolist(), b[j].tolist(), strict=True)
            real = sum((Fraction(p) - Fraction(q)) ** 2 for p, q in pairs)
            assert abs(Fraction(value) / real - 1) < Fraction(1, 10**14)


def test_nearest_with_ties_groups_and_too_few_rows() -> None:
    index, distance = reference.nearest([[0.0], [10.0]], [[1.0], [-1.0], [9.0]], 3, [0, 1], [1, 1, 0])
    assert index.tolist() == [[0, 1, -1], [2, -1, -1]]
    assert distance.tolist() == [[1.0, 1.0, np.inf], [1.0, np.inf, np.inf]]


def test_association_takes_mutual_pairs_with_the_closest_seed() -> None:
    # One value a patch. Images 0 and 1 are seeds; image 2 has a patch near each, image 3 only strays.
    x = np.array([[[0.0], [10.0]], [[3.0], [20.0]], [[0.5], [19.0]], [[2.9], [3.2]]])
    members = set(zip(*(column.tolist() for column in reference.associate(x, [1, 0])), strict=True))
    own = {(s, p, s, p) for s in (0, 1) for p in (0, 1)}
    # (0, 0) and (1, 0) are mutual; 10 is nearer to 3 than to 20, where 0 is nearer still: it joins none.
    assert (0, 0, 1, 0) in members
    assert (2, 0, 0, 0) in members
    assert (2, 1, 1, 1) in members
    assert (3, 0, 1, 0) in members
    assert not any(m[:2] == (3, 1) for m in members)  # nearest to (1, 0), which 2.9 has taken
    assert own <= members
    later = set(zip(*(c.tolist() for c in reference.associate(x, [1, 0], "later")), strict=True))
    assert (0, 0, 1, 0) not in later
    assert (2, 1, 1, 1) in later


def test_a_patch_of_two_channels_is_stored_once_under_its_own() -> None:
    x = np.zeros((4, 1, 2), np.float32)
    x[:, 0, 0] = [0.0, 1.0, 2.0, 3.0]
    both = reference.Members(*np.array([[0, 0, 0, 0], [0, 0, 1, 0], [1, 0, 1, 0], [2, 0, 1, 0], [3, 0, 1, 0]]).T)
    nominal = reference.nominal_patches(x, both, min_length=0, max_std=None)
    assert nominal.channel_seed_image.tolist() == [0, 1, 1, 1]
    # With its own channel too short it is stored under the other.
    nominal = reference.nominal_patches(x, both, min_length=1, max_std=None)
    assert nominal.channel_seed_image.tolist() == [1, 1, 1, 1]
    assert nominal.image_index.tolist() == [0, 1, 2, 3]


def test_pooling_reads_the_inputs_that_the_formula_names() -> None:
    # n = 5 to m = 3: 0..1, 1..3, 3..4.
    assert reference.adaptive_average_pool([1.0, 3.0, 8.0, 4.0, 6.0], 3).tolist() == [2.0, 5.0, 5.0]


def test_description_is_torchs() -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(3)
    x = torch.from_numpy(rng.normal(size=(1, 5, 7, 6)))
    unfolded = torch.nn.functional.unfold(x, 3, padding=1).reshape(1, 45, 7, 6)
    np.testing.assert_array_equal(reference.neighbourhood(x[0].numpy()), unfolded[0].numpy())
    resized = torch.nn.functional.interpolate(unfolded, size=(10, 14), mode="bilinear")
    np.testing.assert_allclose(reference.resample_bilinear(unfolded[0].numpy(), 10, 14), resized[0].numpy(), atol=1e-14)
    pooled = torch.nn.functional.adaptive_avg_pool1d(resized.reshape(1, 45, 140).transpose(1, 2), 20)
    np.testing.assert_allclose(reference.describe([x[0].numpy()], (10, 14), dim=20), pooled[0].numpy(), atol=1e-14)


def test_positions_are_row_then_column() -> None:
    embedded = reference.embed_position(np.zeros((6, 1)), (2, 3), weight=6.0)
    assert embedded[:, 1:].tolist() == [[0, 0], [0, 2], [0, 4], [3, 0], [3, 2], [3, 4]]


def test_transpose_score_of_a_symmetric_image_is_zero() -> None:
    image = np.random.default_rng(4).random((5, 5, 3))
    assert reference.transpose_score(image + image.transpose(1, 0, 2)) == 0.0
    assert reference.transpose_score(np.array([[[0.0], [2.0]], [[0.0], [0.0]]])) == 2.0


def test_maps() -> None:
    assert reference.upsample_nearest([[1, 2]], 2, 4).tolist() == [[1, 1, 2, 2]] * 2
    flat = reference.anomaly_map(np.full((3, 3), 2.5), 12, 12)
    np.testing.assert_allclose(flat, 2.5)
    assert reference.image_score([[1.0, 4.0], [3.0, 2.0]]) == 4.0


def test_scores() -> None:
    assert reference.patch_scores([[0.0]], [[3.0], [-4.0]]).tolist() == [9.0]
    assert reference.patch_scores([[0.0]], [[3.0], [-4.0]], "l2").tolist() == [3.0]
    assert reference.mahalanobis_scores([[3.0, 8.0]], [[0.0, 0.0]], [[1.0, 2.0]]).tolist() == [5.0]
    # Two neighbours at the same distance: the weight is 1 - 1/2.
    assert reference.patchcore_scores([[0.0]], [[2.0], [-2.0]], neighbours=2).tolist() == [1.0]
