"""Reading labelled data sets, and making the protocol's training lists of them."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from evaluation.mvtec_tree import write_class
from PIL import Image

from inreach_fast.errors import DataError, EmptyFolderError, ImageError, ParameterError
from inreach_fast.evaluation.mvtec import list_classes, make_training_set, read_dataset, read_mask
from inreach_fast.evaluation.supplement import corruption_list

DATA = Path(__file__).parents[3] / "shared" / "data"


def paths(training):
    return [sample.path for sample in training.samples]


def overlap(training):
    return {s.name for s, added in zip(training.samples, training.from_test, strict=True) if added}


def test_mvtec_layout(tmp_path):
    write_class(tmp_path)
    data = read_dataset(tmp_path, "bottle")
    assert list_classes(tmp_path) == ["bottle"]
    assert [s.name for s in data.train] == [f"good/{i:03d}.png" for i in range(4)]
    assert len(data.test) == 42
    by_name = {s.name: s for s in data.test}
    bad = by_name["contamination/010.png"]
    assert bad.defective
    assert bad.name.startswith("contamination/")
    mask = read_mask(bad)
    assert mask is not None
    assert mask.sum() == 16
    good = by_name["good/100.png"]
    assert not good.defective
    assert read_mask(good) is None
    assert [s.name for s in data.test] == sorted(by_name)


def test_training_set_in_the_authors_order(tmp_path):
    write_class(tmp_path)
    data = read_dataset(tmp_path, "bottle")
    clean = make_training_set(data)
    assert clean.samples == data.train
    assert overlap(clean) == set()
    ten = make_training_set(data, corrupt=10)
    assert [s.name for s in ten.samples[4:]] == list(corruption_list("bottle")[:10])
    assert ten.from_test == (False,) * 4 + (True,) * 10
    # good/018 of the list is the test set's, not the training folder's image of that number.
    assert paths(ten)[4] == tmp_path / "bottle" / "test" / "good" / "018.png"
    assert overlap(ten) == set(corruption_list("bottle")[:10])
    # The first ten of bottle's list hold four good test images.
    assert sum(s.defective for s in ten.samples) == 6
    assert len(make_training_set(data, corrupt=40).samples) == 44


def test_shuffled_training_set_is_a_seeded_permutation(tmp_path):
    write_class(tmp_path)
    data = read_dataset(tmp_path, "bottle")
    plain = make_training_set(data, corrupt=10)
    first, again, other = (make_training_set(data, corrupt=10, shuffle=s) for s in (1, 1, 2))
    assert first == again
    assert first.samples != other.samples
    pairs = dict(zip(paths(plain), plain.from_test, strict=True))
    assert dict(zip(paths(first), first.from_test, strict=True)) == pairs
    assert paths(first) != paths(plain)
    assert overlap(first) == overlap(plain)


def test_folder_layout(tmp_path):
    for split, count in (("train", 3), ("test", 2)):
        (tmp_path / "part" / split).mkdir(parents=True)
        (tmp_path / "part" / "masks" / split).mkdir(parents=True)
        for i in range(count):
            Image.new("L", (8, 8)).save(tmp_path / "part" / split / f"{i}.png")
    Image.new("L", (8, 8), 255).save(tmp_path / "part" / "masks" / "train" / "1.png")
    Image.new("L", (8, 8), 255).save(tmp_path / "part" / "masks" / "test" / "0.png")
    for data in (read_dataset(tmp_path, "part", layout="folder"), read_dataset(tmp_path / "part", "", layout="folder")):
        assert data.class_name == "part"
        assert [s.defective for s in data.train] == [False, True, False]
        assert [s.defective for s in data.test] == [True, False]
    assert list_classes(tmp_path, layout="folder") == ["part"]
    # Hidden defects of an unsorted training folder count, though none of them is from the test set.
    training = make_training_set(data)
    assert sum(s.defective for s in training.samples) == 1
    assert overlap(training) == set()
    Image.new("L", (8, 8)).save(tmp_path / "part" / "masks" / "test" / "7.png")
    with pytest.raises(DataError, match=r"7\.png"):
        read_dataset(tmp_path, "part", layout="folder")


@pytest.mark.parametrize(
    ("gone", "error", "named"),
    [
        ("train/good", DataError, "train/good"),
        ("test", DataError, "bottle/test"),
        ("ground_truth", DataError, "ground_truth/broken_large"),
        ("ground_truth/contamination", DataError, "ground_truth/contamination"),
        ("ground_truth/contamination/010_mask.png", DataError, "contamination/010_mask.png"),
    ],
)
def test_missing_parts_are_named(tmp_path, gone, error, named):
    base = write_class(tmp_path)
    path = base / gone
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    with pytest.raises(error, match=named):
        read_dataset(tmp_path, "bottle")


def test_reader_errors(tmp_path):
    with pytest.raises(DataError, match="nowhere"):
        read_dataset(tmp_path / "nowhere", "bottle")
    with pytest.raises(DataError, match="nowhere"):
        list_classes(tmp_path / "nowhere")
    with pytest.raises(EmptyFolderError, match="no class folder"):
        list_classes(tmp_path)
    with pytest.raises(ParameterError, match="layout"):
        read_dataset(tmp_path, "bottle", layout="coco")
    base = write_class(tmp_path)
    for file in (base / "train" / "good").iterdir():
        file.unlink()
    with pytest.raises(EmptyFolderError, match="train/good"):
        read_dataset(tmp_path, "bottle")


def test_training_set_errors(tmp_path):
    base = write_class(tmp_path)
    data = read_dataset(tmp_path, "bottle")
    for value in (-1, 41, True, 2.0):
        with pytest.raises(ParameterError, match="corrupt"):
            make_training_set(data, corrupt=value)
    with pytest.raises(ParameterError, match="shuffle"):
        make_training_set(data, shuffle=-1)
    (base / "test" / "good" / "018.png").unlink()
    with pytest.raises(DataError, match=r"good/018.png: missing"):
        make_training_set(read_dataset(tmp_path, "bottle"), corrupt=10)
    base.rename(tmp_path / "my_part")
    with pytest.raises(DataError, match="my_part"):
        make_training_set(read_dataset(tmp_path, "my_part"), corrupt=10)


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGB", "RGBA", "LA", "I;16"])
def test_masks_of_every_mode(tmp_path, mode):
    write_class(tmp_path)
    sample = next(s for s in read_dataset(tmp_path, "bottle").test if s.defective)
    truth = np.zeros((16, 16), dtype=np.uint8)
    truth[2:5, 3:9] = 255
    if mode == "I;16":
        Image.fromarray(truth.astype(np.uint16) * 257).save(sample.mask_path)
    elif mode == "P":
        picture = Image.fromarray(truth // 255, mode="P")
        picture.putpalette([0, 0, 0, 255, 255, 255])
        picture.save(sample.mask_path)
    else:
        Image.fromarray(truth).convert(mode).save(sample.mask_path)
    mask = read_mask(sample)
    assert mask is not None
    assert mask.dtype == bool
    np.testing.assert_array_equal(mask, truth > 0)


def test_broken_mask_is_named(tmp_path):
    write_class(tmp_path)
    sample = next(s for s in read_dataset(tmp_path, "bottle").test if s.defective)
    sample.mask_path.write_bytes(sample.mask_path.read_bytes()[:40])
    with pytest.raises(ImageError, match=r"_mask\.png"):
        read_mask(sample)


@pytest.mark.parametrize(("name", "train", "test", "masks"), [("bottle", 209, 83, 63), ("pill", 267, 167, 141)])
def test_real_classes(name, train, test, masks):
    if not (DATA / name).is_dir():
        pytest.skip("the real images are not here")
    data = read_dataset(DATA, name)
    assert len(data.train) == train
    assert len(data.test) == test
    assert sum(s.defective for s in data.test) == masks
    assert len(overlap(make_training_set(data, corrupt=40, shuffle=0))) == 40
    mask = read_mask(next(s for s in data.test if s.defective))
    assert mask is not None
    assert 0 < mask.mean() < 0.5
