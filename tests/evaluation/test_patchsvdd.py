"""PatchSVDD: pairs, encoders and maps against what they are by definition, the search against brute force; training."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from patterned_images import patterned_images

from inreach_fast.errors import DataError, MixedSizesError, NotFittedError, ParameterError
from inreach_fast.evaluation.peers import PeerSettings, make_peer
from inreach_fast.evaluation.peers.patch_encoder import PatchNetworks
from inreach_fast.evaluation.peers.patch_pairs import DIRECTIONS, adjacent_pair, close_pair, noisy
from inreach_fast.evaluation.peers.patchsvdd import PatchSVDD, spread
from inreach_fast.evaluation.peers.training import Schedule, train

SIDE = 80
TINY = {"width": 2, "dim": 6}
SMALL = TINY | {"batch": 2}


def settings(**changed) -> PeerSettings:
    def none():
        raise AssertionError("no backbone is needed")

    small = {"image_size": (SIDE, SIDE), "backbone": none, "threads": 1, "training_steps": 3}
    return PeerSettings(**(small | changed))


# -------------------------------------------------------------------------------------------------------- pairs


@pytest.mark.parametrize("patch", [32, 64])
def test_adjacent_patches_lie_in_their_direction(patch):
    rng, size = np.random.default_rng(0), (400, 500)
    seen, distances = set(), set()
    for _ in range(600):
        first, second, direction = adjacent_pair(size, patch, rng)
        for corner in (first, second):
            assert all(0 <= at <= side - patch for at, side in zip(corner, size, strict=True))
        if all(patch <= at <= side - 2 * patch for at, side in zip(first, size, strict=True)):  # was not moved inside
            apart = np.subtract(second, first)
            assert tuple(np.sign(apart)) == DIRECTIONS[direction]
            distances |= set(np.abs(apart[apart != 0]).tolist())
        seen.add(direction)
    assert seen == set(range(8))
    assert min(distances) >= 3 * patch // 4
    assert max(distances) < patch
    assert len(distances) > patch // 8


@pytest.mark.parametrize(("patch", "most"), [(32, 1), (64, 2)])
def test_close_patches_are_a_32th_apart_at_most(patch, most):
    rng, size = np.random.default_rng(0), (300, 200)
    apart = set()
    for _ in range(600):
        first, second = close_pair(size, patch, rng)
        assert all(0 <= at <= side - patch for at, side in zip(second, size, strict=True))
        if all(most <= at <= side - patch - most for at, side in zip(first, size, strict=True)):
            apart.add(tuple(np.subtract(second, first).tolist()))
    steps = range(-most, most + 1)
    assert apart == {(y, x) for y in steps for x in steps} - {(0, 0)}


def test_the_only_patch_of_an_image_is_both_of_a_pair():
    rng = np.random.default_rng(0)
    assert adjacent_pair((64, 64), 64, rng)[:2] == ((0, 0), (0, 0))
    assert close_pair((64, 64), 64, rng) == ((0, 0), (0, 0))


def test_noise_shifts_colours_and_values():
    patch = np.zeros((200, 200, 3), np.float32)
    made = noisy(patch, np.random.default_rng(0))
    assert made.dtype == np.float32
    np.testing.assert_array_equal(made, noisy(patch, np.random.default_rng(0)))
    np.testing.assert_allclose(made.std(axis=(0, 1)), 0.02, rtol=0.05)
    shifts = [noisy(patch, np.random.default_rng(seed)).mean(axis=(0, 1)) for seed in range(30)]
    assert 0.015 < np.std(shifts) < 0.025


# ----------------------------------------------------------------------------------------------------- encoders


def test_shapes_are_the_papers():
    networks = PatchNetworks(dim=64, width=32)
    small, large = networks.encoder.grids(torch.zeros(3, 256, 256), 4, 16)
    assert small.shape == (57, 57, 64)
    assert large.shape == (13, 13, 64)
    widths = [layer.out_channels for layer in networks.encoder.small.layers]
    assert widths == [32, 64, 128, 128, 64, 32, 32, 64]


@pytest.mark.parametrize("size", [(64, 64), (83, 98)])
def test_a_grid_holds_the_embeddings_of_its_patches(size):
    torch.manual_seed(0)
    encoder, image = PatchNetworks(dim=5, width=3).encoder, torch.randn(3, *size)
    with torch.inference_mode():
        for grid, encode, patch, stride in zip(
            encoder.grids(image, 4, 16), (encoder.small_patches, encoder.large_patches), (32, 64), (4, 16), strict=True
        ):
            rows, columns = (range(0, side - patch + 1, stride) for side in size)
            assert grid.shape == (len(rows), len(columns), 5)
            patches = torch.stack([image[:, y : y + patch, x : x + patch] for y in rows for x in columns])
            torch.testing.assert_close(grid.reshape(-1, 5), encode(patches), rtol=1e-4, atol=1e-5)


def test_a_pixels_value_is_the_mean_over_the_patches_that_hold_it():
    rng, size, patch, stride = np.random.default_rng(0), (75, 68), 32, 4
    scores = rng.random((11, 10))  # their last pixels are (71, 67): rows 72 to 74 are in no patch
    total, count = np.zeros(size), np.zeros(size)
    for i in range(11):
        for j in range(10):
            at = np.s_[i * stride : i * stride + patch, j * stride : j * stride + patch]
            total[at] += scores[i, j]
            count[at] += 1
    found = spread(scores, size, patch, stride)
    held = count > 0
    np.testing.assert_allclose(found[held], (total[held] / count[held]), rtol=1e-12)
    np.testing.assert_array_equal(found[72:], np.tile(found[71], (3, 1)))


# ----------------------------------------------------------------------------------------------------- the peer


@pytest.fixture(scope="module")
def fitted():
    peer = PatchSVDD(settings(), **SMALL)
    peer.fit(patterned_images(3, SIDE))
    return peer


def test_the_defaults_are_the_papers():
    peer = make_peer("patchsvdd", settings(image_size=(256, 256), training_steps=None))
    assert peer.parameters() == {
        "steps": None, "batch": 64, "learning_rate": 1e-4, "svdd_weight": 1e-3, "dim": 64, "width": 32,
    }  # fmt: skip


def test_300_epochs_draw_every_image_30000_times(monkeypatch):
    asked = []

    def no_training(network, optimiser, loss_of, images, schedule, progress):
        asked.append(schedule.steps)
        network.eval()
        return []

    monkeypatch.setattr("inreach_fast.evaluation.peers.patchsvdd.train", no_training)
    peer = PatchSVDD(settings(training_steps=None), **TINY)
    peer.fit(patterned_images(3, SIDE))
    assert asked == [300 * math.ceil(3 * 100 / 64)]
    assert peer.parameters()["steps"] == asked[0]


def test_scores_are_distances_to_the_nearest_training_patch(fitted):
    (image,) = patterned_images(1, SIDE, seed=5, defective=True)
    training = [fitted._embeddings(one) for one in patterned_images(3, SIDE)]
    expected = np.ones((SIDE, SIDE))
    for size, stride, shape in ((32, 4, (13, 13)), (64, 16, (2, 2))):
        bank = np.concatenate([grids[size].reshape(-1, 6) for grids in training]).astype(np.float64)
        grid = fitted._embeddings(image)[size].astype(np.float64)
        assert grid.shape == (*shape, 6)
        distances = np.sqrt(((grid[:, :, None] - bank) ** 2).sum(axis=-1)).min(axis=-1)
        expected *= spread(distances, (SIDE, SIDE), size, stride)
    score, values = fitted.predict(image)
    assert (values.shape, values.dtype) == ((SIDE, SIDE), np.float32)
    np.testing.assert_allclose(values, expected, rtol=1e-4)
    assert score == values.max() > 0


def test_the_mean_training_image_is_subtracted(fitted):
    images = patterned_images(3, SIDE)
    mean = np.mean(np.stack(images).astype(np.float64), axis=0)
    (patch,) = fitted._patches(images[:1], [(5, 7)], 32)
    np.testing.assert_allclose(patch, (images[0] - mean)[5:37, 7:39] / 255, atol=1e-6)


def test_a_defect_scores_above_good_images():
    peer = PatchSVDD(settings(), **SMALL)
    peer.fit(patterned_images(6, SIDE))
    good = [peer.predict(image)[0] for image in patterned_images(4, SIDE, seed=1)]
    bad = [peer.predict(image) for image in patterned_images(4, SIDE, seed=2, defective=True)]
    assert max(good) < min(score for score, _ in bad)
    for _, values in bad:
        assert values[10:22, 12:24].mean() > 2 * values[-20:, -20:].mean()


@pytest.mark.parametrize("weight", [0.0, 100.0], ids=["positions", "SVDD"])
def test_the_loss_falls(weight):
    """On one step's pairs again and again, so that few steps suffice."""
    peer = PatchSVDD(settings(), batch=4, width=4, dim=8, svdd_weight=weight)
    optimiser, images = torch.optim.Adam(peer.networks.parameters(), 5e-3), patterned_images(4, SIDE)
    losses = train(
        peer.networks, optimiser, lambda step: peer._loss(images, 0), images, Schedule("t", 30, {}, threads=1)
    )
    assert losses[-1] < 0.7 * losses[0]
    for name, parameter in peer.networks.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0, name


def test_a_killed_training_gives_the_same_scores(tmp_path, fitted):
    images = patterned_images(3, SIDE)

    class Killed(Exception):
        pass

    def kill(stage: str, done: int, total: int) -> None:
        if (stage, done) == ("train patchsvdd", 2):
            raise Killed

    with pytest.raises(Killed):
        PatchSVDD(settings(folder=tmp_path), **SMALL, checkpoint_every=2).fit(images, kill)
    resumed = PatchSVDD(settings(folder=tmp_path), **SMALL, checkpoint_every=2)
    torch.manual_seed(9)
    resumed.fit(images)
    assert len(resumed.losses) == 1
    for image in patterned_images(2, SIDE, seed=4, defective=True):
        (score, values), (again, found) = fitted.predict(image), resumed.predict(image)
        assert again == score
        np.testing.assert_array_equal(found, values)


def test_another_seed_is_another_training():
    peers = [PatchSVDD(settings(seed=seed, training_steps=1), **SMALL) for seed in (0, 0, 1)]
    for peer in peers:
        peer.fit(patterned_images(2, SIDE))
    assert peers[0].losses == peers[1].losses != peers[2].losses


def test_making_one_draws_nothing_from_torchs_generator():
    state = torch.random.get_rng_state()
    PatchSVDD(settings(), **SMALL)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_one_training_image_of_one_patch():
    peer = PatchSVDD(settings(image_size=(64, 64), training_steps=1), **SMALL)
    stages = []
    (image,) = patterned_images(1, 64)
    peer.fit([image], lambda *told: stages.append(told))
    assert stages == [("train patchsvdd", 0, 1), ("train patchsvdd", 1, 1), ("embed", 1, 1)]
    assert peer.predict(image)[0] == 0
    assert peer.predict(*patterned_images(1, 64, defective=True))[0] > 0


def test_images_that_cannot_be_used(fitted):
    with pytest.raises(ParameterError, match=r"image_size: 63 x 80 is smaller than a patch.*; give at least 64 x 64"):
        PatchSVDD(settings(image_size=(63, 80)))
    peer = PatchSVDD(settings(), **SMALL)
    with pytest.raises(DataError, match="images: there is none"):
        peer.fit([])
    with pytest.raises(MixedSizesError, match=r"images\[1\]"):
        peer.fit([*patterned_images(1, SIDE), *patterned_images(1, SIDE + 1)])
    with pytest.raises(NotFittedError):
        peer.predict(*patterned_images(1, SIDE))
    with pytest.raises(MixedSizesError):
        fitted.predict(*patterned_images(1, SIDE + 1))
