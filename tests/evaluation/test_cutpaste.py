"""CutPaste: its augmentations stay within the paper's bounds; density and map against NumPy and autograd; training."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from patterned_images import patterned_images
from PIL import Image
from safetensors.torch import save_file
from sklearn.covariance import ledoit_wolf

from inreach_fast.errors import DataError, MixedSizesError, NotFittedError, ParameterError, WeightsError
from inreach_fast.evaluation.peers import PeerSettings, make_peer
from inreach_fast.evaluation.peers import cutpaste as module
from inreach_fast.evaluation.peers.cutpaste import CutPaste
from inreach_fast.evaluation.peers.density import GaussianDensity
from inreach_fast.evaluation.peers.pasting import cut_paste, cut_paste_scar, jittered, varied
from inreach_fast.evaluation.peers.peer import upsampled
from inreach_fast.evaluation.peers.training import Schedule, train

SIDE = 32
SEEDS = range(40)
SMALL = {"images_a_step": 2, "head": (8,)}


def noise(width: int, height: int) -> Image.Image:
    """An image in which a piece that is pasted elsewhere changes nearly all pixels there."""
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def changed_box(before: Image.Image, after: Image.Image) -> tuple[int, int, int]:
    """Width and height of the box around all pixels that differ, and their number."""
    changed = (np.asarray(before) != np.asarray(after)).any(axis=2)
    rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
    return int(np.ptp(columns)) + 1, int(np.ptp(rows)) + 1, int(changed.sum())


# ------------------------------------------------------------------------------------------------ augmentations


@pytest.mark.parametrize("size", [(64, 64), (96, 48)])
def test_a_pasted_rectangle_has_the_papers_area_and_aspect(size):
    image = noise(*size)
    areas, aspects = [], []
    for seed in SEEDS:
        width, height, changed = changed_box(image, cut_paste(image, np.random.default_rng(seed)))
        areas.append(width * height / (size[0] * size[1]))
        aspects.append(height / width)
        assert changed > 0.9 * width * height  # a full rectangle
    assert min(areas) > 0.015
    assert max(areas) < 0.16
    assert 0.25 < min(aspects) < 0.6
    assert 1.8 < max(aspects) < 4


def test_a_scar_is_a_thin_rotated_rectangle():
    image = noise(64, 64)
    found = [changed_box(image, cut_paste_scar(image, np.random.default_rng(seed))) for seed in SEEDS]
    assert max(max(width, height) for width, height, _ in found) <= 31  # the diagonal of 16 x 25
    assert all(10 <= changed <= 17 * 26 for *_, changed in found)
    assert any(changed < 0.8 * width * height for width, height, changed in found)  # rotated: corners stay


@pytest.mark.parametrize("make", [cut_paste, cut_paste_scar])
def test_small_images_hold_what_is_pasted(make):
    image = noise(32, 32)
    for seed in SEEDS:
        assert make(image, np.random.default_rng(seed)).size == (32, 32)


def test_jitter_changes_a_grey_level_by_a_tenth_at_most():
    image = Image.fromarray(np.full((8, 8, 3), 100, np.uint8))
    levels = np.array([np.asarray(jittered(image, np.random.default_rng(seed)))[0, 0] for seed in SEEDS], dtype=int)
    assert 89 <= levels.min() < 95
    assert 105 < levels.max() <= 111


def test_a_varied_image_is_moved_by_a_64th_of_its_side_at_most():
    image = np.zeros((128, 64, 3), np.uint8)
    image[60, 30] = 255
    places = set()
    for seed in SEEDS:
        found = np.asarray(varied(image, np.random.default_rng(seed))).sum(axis=2)
        assert found.shape == (128, 64)
        places.add(tuple(int(x) for x in np.unravel_index(found.argmax(), found.shape)))
    assert {y for y, _ in places} == {58, 59, 60, 61, 62}
    assert {x for _, x in places} == {29, 30, 31}


@pytest.mark.parametrize("make", [cut_paste, cut_paste_scar, jittered])
def test_augmentations_depend_on_their_generator_alone(make):
    image = noise(48, 48)
    before = np.asarray(image).copy()
    first = np.asarray(make(image, np.random.default_rng(5)))
    torch.rand(3)
    np.random.seed(1)  # noqa: NPY002
    np.testing.assert_array_equal(np.asarray(make(image, np.random.default_rng(5))), first)
    assert (np.asarray(make(image, np.random.default_rng(6))) != first).any()
    np.testing.assert_array_equal(np.asarray(image), before)


# ------------------------------------------------------------------------------------------------------ density


@pytest.mark.parametrize("count", [60, 4, 2])
def test_distances_are_mahalanobis_of_the_shrunk_covariance(count):
    rng = np.random.default_rng(count)
    rows, queries = rng.normal(size=(count, 7)) * np.arange(1, 8), rng.normal(size=(5, 7)) * 3
    covariance = ledoit_wolf(rows)[0]
    covariance = covariance + 1e-6 * np.trace(covariance) / 7 * np.eye(7)
    difference = queries - rows.mean(axis=0)
    expected = np.sqrt(np.einsum("ni,ij,nj->n", difference, np.linalg.inv(covariance), difference))
    np.testing.assert_allclose(GaussianDensity.fit(rows).distances(queries), expected, rtol=1e-8)


@pytest.mark.parametrize("count", [1, 3])
def test_without_variance_distances_are_euclidean(count):
    density = GaussianDensity.fit(np.ones((count, 4), np.float32))
    np.testing.assert_allclose(density.distances(np.array([[1, 1, 1, 1], [1, 4, 1, 5]])), [0, 5])


def test_values_that_are_always_zero_do_no_harm():
    rows = np.random.default_rng(0).normal(size=(500, 4))
    rows[:, 2] = 0
    assert np.isfinite(GaussianDensity.fit(rows).distances(rows)).all()


def test_the_gradient_is_that_of_the_squared_distance():
    rng = np.random.default_rng(1)
    density = GaussianDensity.fit(rng.normal(size=(20, 5)))
    at, step = rng.normal(size=5), 1e-6
    moved = np.concatenate([at + step * np.eye(5), at - step * np.eye(5)])
    squared = density.distances(moved) ** 2
    np.testing.assert_allclose(density.gradient(at), (squared[:5] - squared[5:]) / (2 * step), rtol=1e-6)


# ----------------------------------------------------------------------------------------------------- the peer


def settings(**changed) -> PeerSettings:
    def none():
        raise AssertionError("no backbone is needed")

    small = {"image_size": (SIDE, SIDE), "backbone": none, "threads": 1, "training_steps": 3}
    return PeerSettings(**(small | changed))


@pytest.fixture(scope="module")
def fitted():
    peer = CutPaste(settings(image_size=(64, 64)), **SMALL)
    peer.fit(patterned_images(5, 64))
    return peer


def test_the_defaults_are_the_papers():
    peer = make_peer("cutpaste", settings(image_size=(256, 256), training_steps=None))
    assert peer.parameters() == {
        "steps": 256 * 256,
        "images_a_step": 32,
        "learning_rate": 0.03,
        "momentum": 0.9,
        "weight_decay": 3e-5,
        "head": [512, 128],
        "weights": "random",
    }


def test_the_loss_falls():
    """On one step's images again and again, so that few steps suffice."""
    peer, images = CutPaste(settings(), **SMALL), patterned_images(4, SIDE)
    optimiser = torch.optim.SGD(peer.network.parameters(), 0.01, momentum=0.9)
    losses = train(peer.network, optimiser, lambda step: peer._loss(images, 0), images, Schedule("t", 8, {}, threads=1))
    assert losses[-1] < 0.7 * losses[0]
    assert all(parameter.grad.abs().sum() > 0 for parameter in peer.network.parameters())


def test_a_defect_scores_above_good_images(fitted):
    good = [fitted.predict(image)[0] for image in patterned_images(4, 64, seed=1)]
    bad = [fitted.predict(image)[0] for image in patterned_images(4, 64, seed=2, defective=True)]
    assert max(good) < min(bad)


def test_the_map_is_gradcam_of_the_squared_distance(fitted):
    (image,) = patterned_images(1, 64, seed=3, defective=True)
    score, found = fitted.predict(image)
    with torch.enable_grad():
        maps = torch.from_numpy(fitted._features(image)[1]).double().requires_grad_()
        whitened = torch.linalg.solve_triangular(
            torch.from_numpy(fitted.density.root),
            (maps.mean(dim=(1, 2)) - torch.from_numpy(fitted.density.mean))[:, None],
            upper=False,
        )
        squared = whitened.square().sum()
        squared.backward()
    assert score == pytest.approx(squared.item() ** 0.5, rel=1e-6)
    cam = (maps.grad.mean(dim=(1, 2), keepdim=True) * maps).sum(dim=0).relu().detach().numpy()
    assert cam.shape == (2, 2)
    np.testing.assert_allclose(found, upsampled(cam.astype(np.float32), (64, 64)), rtol=1e-5)
    assert (found.shape, found.dtype) == ((64, 64), np.float32)
    assert found.max() > 0


def test_a_killed_training_gives_the_same_scores(tmp_path, fitted):
    images = patterned_images(5, 64)

    class Killed(Exception):
        pass

    def kill(stage: str, done: int, total: int) -> None:
        if (stage, done) == ("train cutpaste", 2):
            raise Killed

    with pytest.raises(Killed):
        CutPaste(settings(image_size=(64, 64), folder=tmp_path), **SMALL, checkpoint_every=2).fit(images, kill)
    resumed = CutPaste(settings(image_size=(64, 64), folder=tmp_path), **SMALL, checkpoint_every=2)
    torch.manual_seed(9)
    resumed.fit(images)
    assert len(resumed.losses) == 1
    for image in patterned_images(2, 64, seed=4, defective=True):
        (score, values), (again, found) = fitted.predict(image), resumed.predict(image)
        assert again == score
        np.testing.assert_array_equal(found, values)


def test_another_seed_is_another_training():
    peers = [CutPaste(settings(seed=seed, training_steps=1), **SMALL) for seed in (0, 0, 1)]
    for peer in peers:
        peer.fit(patterned_images(2, SIDE))
    assert peers[0].losses == peers[1].losses != peers[2].losses


def test_making_one_draws_nothing_from_torchs_generator():
    state = torch.random.get_rng_state()
    CutPaste(settings(), **SMALL)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_one_training_image():
    peer = CutPaste(settings(training_steps=1), **SMALL)
    stages = []
    (image,) = patterned_images(1, SIDE)
    peer.fit([image], lambda *told: stages.append(told))
    assert stages == [("train cutpaste", 0, 1), ("train cutpaste", 1, 1), ("embed", 1, 1)]
    score, values = peer.predict(image)
    assert score == 0
    assert np.isfinite(values).all()


def test_images_that_cannot_be_used(fitted):
    with pytest.raises(ParameterError, match=r"image_size: 64 x 31 .*; give at least 32 x 32"):
        CutPaste(settings(image_size=(64, 31)))
    peer = CutPaste(settings(), **SMALL)
    with pytest.raises(DataError, match="images: there is none"):
        peer.fit([])
    with pytest.raises(MixedSizesError, match=r"images\[1\]"):
        peer.fit([*patterned_images(1, SIDE), *patterned_images(1, SIDE + 1)])
    with pytest.raises(NotFittedError):
        peer.predict(*patterned_images(1, SIDE))
    with pytest.raises(MixedSizesError):
        fitted.predict(*patterned_images(1, SIDE))


# ---------------------------------------------------------------------------------------------- initial weights


def test_weights_of_a_file(tmp_path):
    path = tmp_path / "resnet18.safetensors"
    other = CutPaste(settings(seed=7), **SMALL).network.features.state_dict()
    save_file(other | {"fc.bias": torch.zeros(1000)}, path)
    peer = CutPaste(settings(), weights=path, **SMALL)
    assert torch.equal(peer.network.features.state_dict()["layer4.1.conv2.weight"], other["layer4.1.conv2.weight"])
    assert peer.parameters()["weights"] == str(path)
    with pytest.raises(WeightsError, match="is missing"):
        CutPaste(settings(), weights=tmp_path / "none.pth")


def test_imagenet_weights_where_they_are(tmp_path, monkeypatch):
    path = tmp_path / "resnet18.safetensors"
    other = CutPaste(settings(seed=7), **SMALL).network.features.state_dict()
    save_file(other, path)
    asked = []
    monkeypatch.setattr(module, "hub_file", lambda url, what: asked.append((url, what)) or path)
    peer = CutPaste(settings(), weights="imagenet", **SMALL)
    assert torch.equal(peer.network.features.state_dict()["conv1.weight"], other["conv1.weight"])
    assert peer.parameters()["weights"] == "imagenet"
    ((url, what),) = asked
    assert "resnet18-" in url
    assert what == "resnet18"


def test_without_imagenet_weights_training_begins_from_random_ones(monkeypatch, caplog):
    def missing(url: str, what: str) -> None:
        raise WeightsError("weights: not there")

    monkeypatch.setattr(module, "hub_file", missing)
    with caplog.at_level(logging.WARNING, logger="inreach_fast"):
        peer = CutPaste(settings(), weights="imagenet", **SMALL)
    assert peer.parameters()["weights"] == "random"
    assert "weights: not there; training begins from random weights" in caplog.text
