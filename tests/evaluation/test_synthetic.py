"""The demo's data: shapes, seeds, defects that are real and exactly masked, and no network."""

from __future__ import annotations

import socket

import numpy as np
import pytest

from inreach_fast.errors import ParameterError
from inreach_fast.evaluation import synthetic
from inreach_fast.evaluation.synthetic import DEFECTS, TEXTURES, make_texture_set


@pytest.mark.parametrize("texture", TEXTURES)
def test_set_without_network(texture, monkeypatch):
    def refuse(*_args, **_kwargs):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    made = make_texture_set(texture, 16, 8, 0.25, 96, 3)
    assert made.train_images.shape == (16, 96, 96, 3)
    assert made.train_images.dtype == np.uint8
    assert made.test_images.shape == (8, 96, 96, 3)
    assert made.train_masks.shape == (16, 96, 96)
    assert made.train_labels.sum() == 4
    assert made.test_labels.sum() == 4
    assert set(made.train_kinds) == {"good", *DEFECTS}
    for kinds, labels in ((made.train_kinds, made.train_labels), (made.test_kinds, made.test_labels)):
        assert [kind != "good" for kind in kinds] == labels.tolist()
    # Defects are small: what is inspected is mostly good.
    assert 0 < made.train_masks[made.train_labels].mean() < 0.1
    # Real contrast, no empty picture.
    assert made.train_images.std(axis=(1, 2, 3)).min() > 8


def test_seed_decides_all():
    one, same, other = (make_texture_set("brick", 6, 4, 0.5, 48, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.train_images, same.train_images)
    np.testing.assert_array_equal(one.test_masks, same.test_masks)
    assert one.train_kinds == same.train_kinds
    assert not np.array_equal(one.train_images, other.train_images)


@pytest.mark.parametrize("kind", DEFECTS)
@pytest.mark.parametrize("size", [32, 224])
def test_defects_change_the_masked_pixels_and_no_others(kind, size):
    rng = np.random.default_rng(5)
    photo = synthetic._photograph("brick")
    foreign = [synthetic._photograph("grass")]
    for _ in range(5):
        crop, changed, mask = synthetic._defective_crop(kind, photo, foreign, size, rng)
        np.testing.assert_array_equal(changed[~mask], crop[~mask])
        # Closing takes in paler pixels between those that changed visibly; these must still be enough to see.
        visible = np.abs(changed - crop)[mask] >= synthetic._LEAST_CHANGE
        assert visible.sum() >= 0.002 * size * size


def test_training_and_test_crops_are_drawn_alike(monkeypatch):
    drawn, cut = [], synthetic._cut

    def spy(photo, *given):
        drawn.append(photo)
        return cut(photo, *given)

    monkeypatch.setattr(synthetic, "_cut", spy)
    make_texture_set("brick", 2, 2, 0.5, 64, 0)
    for photo in drawn:
        np.testing.assert_array_equal(photo, synthetic._photograph("brick"))
    assert len(drawn) == 2


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("texture", "wool"),
        ("n_train", 0),
        ("n_test", -1),
        ("defect_share", 1.5),
        ("defect_share", float("nan")),
        ("size", 16),
        ("size", 300),
        ("size", 64.0),
        ("seed", -1),
    ],
)
def test_parameter_errors(name, value):
    with pytest.raises(ParameterError, match=name):
        make_texture_set(**{name: value})
