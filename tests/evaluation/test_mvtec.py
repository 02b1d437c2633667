"""Reading labelled data sets, and making the protocol's training lists of them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from evaluation.mvtec_tree import write_class
from PIL import Image

from inreach_fast.errors import DataError, EmptyFolderError, ImageError, ParameterError
from inreach_fast.evaluation.mvtec import (
    Sample,
    list_classes,
    make_training_set,
    read_dataset,
    read_mask,
    with_masks_read,
)
from inreach_fast.evaluation.protocol import network_mask
from inreach_fast.evaluation.supplement import corruption_list
from inreach_fast.images.preprocess import Geometry

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


# ---------------------------------------------------------------------------------------------- data of other people


def litter(folder):
    """What systems leave in folders of images."""
    for name in ("._000.png", ".DS_Store", "Thumbs.db", "desktop.ini", "notes.txt"):
        (folder / name).write_bytes(b"\0")
    for name in (".ipynb_checkpoints", "__MACOSX"):
        (folder / name).mkdir()
        (folder / name / "000.png").write_bytes(b"\0")


def test_hidden_files_and_folders_are_passed_over(tmp_path):
    base = write_class(tmp_path)
    plain = read_dataset(tmp_path, "bottle")
    for folder in [tmp_path, base, *(path for path in base.rglob("*") if path.is_dir())]:
        litter(folder)
    (tmp_path / ".trash").mkdir()
    shutil.copytree(base, tmp_path / ".trash" / "bottle")
    shutil.copytree(base, tmp_path / ".bottle")
    os.mkfifo(base / "train" / "good" / "fifo.png")
    found = read_dataset(tmp_path, "bottle")
    assert (found.train, found.test, plain.passed_over) == (plain.train, plain.test, ())
    kinds = {"train/good", *(f"test/{sample.name.partition('/')[0]}" for sample in plain.test)}
    assert {note.partition(":")[0] for note in found.passed_over} == {str(base / kind) for kind in kinds}
    assert all("1 file with other suffixes (.txt)" in note for note in found.passed_over)
    assert list_classes(tmp_path) == ["bottle"]


@pytest.mark.parametrize("name", ["010_mask.png", "010.png", "010.bmp", "010_mask.TIF", "010.webp"])
def test_names_and_sizes_of_masks(tmp_path, name):
    base = write_class(tmp_path)
    truth = base / "ground_truth" / "contamination"
    large = np.zeros((64, 32), np.uint8)
    large[16:32, 8:16] = 255
    (truth / "010_mask.png").unlink()
    Image.fromarray(large).save(truth / name, **({"lossless": True} if name.endswith("webp") else {}))
    sample = next(s for s in read_dataset(tmp_path, "bottle").test if s.name == "contamination/010.png")
    assert sample.mask_path == truth / name
    np.testing.assert_array_equal(read_mask(sample), large > 0)
    small = network_mask(sample, Geometry((16, 16), None))
    np.testing.assert_array_equal(small, np.pad(np.ones((4, 4), bool), ((4, 8), (4, 8))))


def test_pairs_that_are_not_certain_are_refused_by_name(tmp_path):
    base = write_class(tmp_path)
    test, truth = base / "test" / "contamination", base / "ground_truth" / "contamination"
    shutil.copy(truth / "010_mask.png", truth / "010.png")
    with pytest.raises(DataError, match=r"test/contamination/010\.png: has two masks.*remove one"):
        read_dataset(tmp_path, "bottle")
    (truth / "010.png").unlink()
    shutil.copy(test / "010.png", test / "010.jpg")
    with pytest.raises(DataError, match=r"010_mask\.png: this mask can be that of 010\.jpg or of 010\.png; rename"):
        read_dataset(tmp_path, "bottle")
    (test / "010.jpg").rename(test / "010_mask.jpg")
    with pytest.raises(
        DataError, match=r"010_mask\.png: this mask can be that of 010\.png or of 010_mask\.jpg; rename"
    ):
        read_dataset(tmp_path, "bottle")


def test_pairs_of_the_folder_layout(tmp_path):
    for split in ("train", "test"):
        for name in ("0.png", "1.png", "2.jpg"):
            (tmp_path / split).mkdir(exist_ok=True)
            Image.new("RGB", (8, 8)).save(tmp_path / split / name)
    masks = tmp_path / "masks" / "test"
    masks.mkdir(parents=True)
    Image.new("L", (8, 8), 255).save(masks / "1_mask.bmp")
    Image.new("L", (8, 8), 255).save(masks / "2.png")
    litter(masks)
    data = read_dataset(tmp_path, "", layout="folder")
    assert [s.defective for s in data.train] == [False] * 3
    assert [s.defective for s in data.test] == [False, True, True]
    shutil.copy(tmp_path / "test" / "0.png", tmp_path / "test" / "0.bmp")  # no mask: nothing to mistake
    assert len(read_dataset(tmp_path, "", layout="folder").test) == 4
    shutil.copy(tmp_path / "test" / "1.png", tmp_path / "test" / "1.bmp")
    with pytest.raises(DataError, match=r"1_mask\.bmp: this mask can be that of 1\.bmp or of 1\.png"):
        read_dataset(tmp_path, "", layout="folder")


TRUTH = np.zeros((24, 20), bool)
TRUTH[5:11, 3:14] = True


def two(low, high, dtype=np.uint8):
    return Image.fromarray(np.where(TRUTH, high, low).astype(dtype))


def palette(background, defect, other=(7, 7, 7)):
    image = Image.fromarray(np.where(TRUTH, 0, 2).astype(np.uint8))
    image.putpalette([*defect, *other, *background])
    return image


def alpha(colour, background_alpha):
    pixels = np.full((*TRUTH.shape, 4), 255, np.uint8)
    pixels[:, :, :3] = colour
    pixels[~TRUTH, 3] = background_alpha
    return Image.fromarray(pixels)


@pytest.mark.parametrize(
    ("image", "suffix"),
    [
        (two(0, 1), "png"), (two(0, 255), "png"), (two(1, 2), "png"), (two(64, 192), "png"), (two(0, 1, bool), "png"),
        (two(0, 1, np.uint16), "png"), (two(0, 1, np.uint16), "tif"), (two(0, 65535, np.uint16), "png"),
        (two(0, 1, np.int32), "tif"), (two(0, 1, np.float32), "tif"), (two(0.25, 0.5, np.float32), "tif"),
        (palette((0, 0, 0), (255, 0, 0)), "png"), (palette((0, 0, 0), (1, 1, 1)), "gif"),
        (palette((0, 0, 90), (128, 128, 0)), "png"), (alpha((255, 255, 255), 0), "png"),
        (two(0, 255), "jpg"), (two(0, 90), "jpg"), (two(0, 255), "jp2"),
        (Image.fromarray(np.where(TRUTH, np.arange(20) % 3 + 1, 0).astype(np.uint8)), "png"),  # numbered kinds
    ],
)  # fmt: skip
def test_masks_of_two_values(tmp_path, image, suffix):
    image.save(tmp_path / f"mask.{suffix}")
    mask = read_mask(Sample(tmp_path / "a.png", "a.png", tmp_path / f"mask.{suffix}"))
    assert mask.dtype == bool
    if suffix == "jpg":  # the edge of a defect is a pixel off
        assert (mask != TRUTH).mean() < 0.02
    else:
        np.testing.assert_array_equal(mask, TRUTH)


def test_masks_of_one_value_and_turned_masks(tmp_path):
    sample = Sample(tmp_path / "a.png", "a.png", tmp_path / "mask.png")
    for level, expected in ((0, False), (1, True), (255, True)):
        Image.new("L", (8, 6), level).save(sample.mask_path)
        assert (read_mask(sample) == expected).all()
    exif = Image.Exif()
    exif[0x0112] = 6
    two(0, 255).save(sample.mask_path, exif=exif)
    np.testing.assert_array_equal(read_mask(sample), np.rot90(TRUTH, -1))
    alpha((0, 0, 0), 0).save(sample.mask_path)
    with pytest.raises(ImageError, match="only its transparency"):
        read_mask(sample)


def test_a_black_mask_is_a_good_image(tmp_path):
    write_class(tmp_path)
    samples = [s for s in read_dataset(tmp_path, "bottle").test if s.defective][:3]
    Image.new("L", (16, 16)).save(samples[0].mask_path)
    checked, reasons = with_masks_read(samples)
    assert [s.defective for s in checked] == [False, True, True]
    assert (checked[1:], reasons) == (samples[1:], [])
    samples[1].mask_path.write_bytes(b"no image")
    with pytest.raises(ImageError, match="_mask"):
        with_masks_read(samples)
    checked, reasons = with_masks_read(samples, skip_bad=True)
    assert [s is None for s in checked] == [False, True, False]
    assert samples[1].mask_path.name in reasons[0]


def test_a_class_without_ground_truth_has_labels(tmp_path):
    base = write_class(tmp_path)
    shutil.rmtree(base / "ground_truth")
    data = read_dataset(tmp_path, "bottle")
    assert [s.defective for s in data.test] == [not s.name.startswith("good/") for s in data.test]
    assert all(s.mask_path is None for s in data.test)
