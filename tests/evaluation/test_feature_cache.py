"""The descriptors cache: same values, one computation an image, keys that tell all apart, damaged files."""

from __future__ import annotations

import numpy as np
import pytest

from inreach_fast.errors import SaveError
from inreach_fast.evaluation.feature_cache import FeatureCache


class Describe:
    """Counts the images that it is asked for."""

    def __init__(self):
        self.images = 0

    def __call__(self, batch):
        self.images += len(batch)
        return batch.reshape(len(batch), -1, 3).astype(np.float32) * 0.5


@pytest.fixture
def batch():
    return np.random.default_rng(0).integers(0, 255, (3, 4, 5, 3), dtype=np.uint8)


def test_each_image_is_described_once(tmp_path, batch):
    plain, describe, cache = Describe(), Describe(), FeatureCache(tmp_path / "a" / "b")
    np.testing.assert_array_equal(cache.described(batch[:2], describe, "x"), plain(batch[:2]))
    # One image known, one new, in another order and batch.
    np.testing.assert_array_equal(cache.described(batch[[2, 0]], describe, "x"), plain(batch[[2, 0]]))
    got = FeatureCache(tmp_path / "a" / "b").described(batch, describe, "x")
    np.testing.assert_array_equal(got, plain(batch))
    assert got.dtype == np.float32
    assert describe.images == 3
    assert (cache.hits, cache.misses) == (1, 3)


def test_other_fingerprints_pixels_and_shapes_are_other_entries(tmp_path, batch):
    describe, cache = Describe(), FeatureCache(tmp_path)
    cache.described(batch[:1], describe, "x")
    cache.described(batch[:1], describe, "y")
    changed = batch[:1].copy()
    changed[0, 0, 0, 0] ^= 1
    cache.described(changed, describe, "x")
    cache.described(batch[:1].reshape(1, 5, 4, 3), describe, "x")
    assert describe.images == 4


@pytest.mark.parametrize("keep", [0, 20, 200])
def test_damaged_files_are_computed_anew(tmp_path, batch, keep):
    describe = Describe()
    cache = FeatureCache(tmp_path)
    expected = cache.described(batch[:1], describe, "x").copy()
    (file,) = tmp_path.rglob("*.npy")
    file.write_bytes(file.read_bytes()[:keep])
    np.testing.assert_array_equal(cache.described(batch[:1], describe, "x"), expected)
    assert describe.images == 2
    np.testing.assert_array_equal(cache.described(batch[:1], describe, "x"), expected)
    assert describe.images == 2
    assert not list(tmp_path.rglob("*.part"))


def test_unusable_folder_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SaveError, match="file"):
        FeatureCache(tmp_path / "file")


def test_failed_write_is_named_and_leaves_nothing(tmp_path, batch, monkeypatch):
    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(SaveError, match="No space left"):
        FeatureCache(tmp_path).described(batch, Describe(), "x")
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]
