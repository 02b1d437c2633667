"""Reading image files: every kind that is promised, and every way in which a file can be broken."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from images.generated import write_png16
from PIL import Image

from inreach_fast.errors import DataError, EmptyFolderError, ImageError
from inreach_fast.images.reading import list_images, natural_key, read_image, to_rgb8

RNG = np.random.default_rng(5)
RGB = RNG.integers(0, 256, (13, 17, 3), dtype=np.uint8)
DEEP = RNG.integers(0, 65536, (13, 17, 4), dtype=np.uint16)


def scaled(values: np.ndarray) -> np.ndarray:
    """round(v / 257) in whole numbers: no half occurs, since 257 is odd."""
    return ((values.astype(np.int64) + 128) // 257).astype(np.uint8)


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "tiff"])
def test_8_bit_colour_comes_back_as_it_is(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(RGB).save(path)
    image = read_image(path)
    assert image.dtype == np.uint8
    assert image.flags.c_contiguous
    assert image.flags.writeable
    np.testing.assert_array_equal(image, RGB)


def test_jpeg_comes_close(tmp_path: Path) -> None:
    smooth = np.linspace(0, 255, 32 * 32 * 3).reshape(32, 32, 3).astype(np.uint8)
    Image.fromarray(smooth).save(tmp_path / "a.JPG", quality=95)
    assert np.abs(read_image(tmp_path / "a.JPG").astype(int) - smooth).max() < 16


def test_grey_palette_and_bilevel_become_rgb(tmp_path: Path) -> None:
    grey = RGB[:, :, 0]
    Image.fromarray(grey).save(tmp_path / "grey.png")
    np.testing.assert_array_equal(read_image(tmp_path / "grey.png"), np.repeat(grey[:, :, None], 3, 2))

    palette = Image.fromarray(grey % 4)
    palette.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255, 9, 8, 7])
    palette.save(tmp_path / "palette.png")
    colours = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [9, 8, 7]], np.uint8)
    np.testing.assert_array_equal(read_image(tmp_path / "palette.png"), colours[grey % 4])

    Image.fromarray(grey > 127).save(tmp_path / "bilevel.png")
    np.testing.assert_array_equal(read_image(tmp_path / "bilevel.png")[:, :, 1], np.where(grey > 127, 255, 0))


def test_alpha_is_composited_over_black(tmp_path: Path) -> None:
    rgba = RNG.integers(0, 256, (9, 8, 4), dtype=np.uint8)
    rgba[0, :, 3], rgba[1, :, 3] = 0, 255
    Image.fromarray(rgba).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    np.testing.assert_array_equal(image[0], 0)
    np.testing.assert_array_equal(image[1], rgba[1, :, :3])
    exact = rgba[:, :, :3].astype(float) * rgba[:, :, 3:] / 255
    assert np.abs(image - exact).max() <= 0.5


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_16_bit_png_is_scaled_from_all_its_bits(tmp_path: Path, channels: int) -> None:
    samples = DEEP[:, :, :channels].copy()
    if channels in (2, 4):
        samples[:, :, -1] = 65535
    write_png16(tmp_path / "a.png", samples)
    colour = samples[:, :, :-1] if channels in (2, 4) else samples
    expected = scaled(colour) if colour.shape[2] == 3 else np.repeat(scaled(colour), 3, 2)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), expected)


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}, {"planarconfig": "separate"}])
def test_16_bit_colour_tiff(tmp_path: Path, byteorder: str, options: dict) -> None:
    samples = DEEP[:, :, :3]
    stored = np.moveaxis(samples, -1, 0) if "planarconfig" in options else samples
    tifffile.imwrite(tmp_path / "a.tif", stored, byteorder=byteorder, photometric="rgb", **options)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), scaled(samples))


@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
def test_16_bit_grey_tiff(tmp_path: Path, photometric: str) -> None:
    grey = DEEP[:, :, 0]
    tifffile.imwrite(tmp_path / "a.tif", grey, photometric=photometric)
    expected = scaled(grey if photometric == "minisblack" else 65535 - grey)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif")[:, :, 2], expected)


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "uint32", "float32", "float64"])
def test_samples_without_a_range_are_refused(tmp_path: Path, dtype: str) -> None:
    tifffile.imwrite(tmp_path / "deep.tif", np.full((5, 5), 3, dtype))
    with pytest.raises(ImageError, match=rf"deep\.tif.*{dtype}.*(8 or 16 bits|uint16)"):
        read_image(tmp_path / "deep.tif")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
def test_exif_orientation_is_honoured(tmp_path: Path, orientation: int, suffix: str) -> None:
    upright = np.zeros((16, 32, 3), np.uint8)
    upright[:8, :16, 0], upright[8:, 16:, 1] = 255, 255
    undo = {  # how the camera stored it
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.swapaxes(0, 1),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
        8: lambda a: np.rot90(a, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(undo(upright)))
    options = {"quality": 95, "subsampling": 0} if suffix == "jpg" else {}
    stored.save(tmp_path / f"a.{suffix}", exif=exif, **options)
    image = read_image(tmp_path / f"a.{suffix}")
    assert image.shape == upright.shape
    assert np.abs(image.astype(int) - upright).mean() < 4


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "bmp"])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.95])
def test_truncated_files_are_named(tmp_path: Path, suffix: str, share: float) -> None:
    whole = tmp_path / f"whole.{suffix}"
    Image.fromarray(RNG.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(whole)
    data = whole.read_bytes()
    broken = tmp_path / f"broken.{suffix}"
    broken.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ImageError, match=rf"broken\.{suffix}"):
        read_image(broken)


def test_what_is_no_image(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("hello, world" * 50)
    with pytest.raises(ImageError, match=r"text\.png.*not a PNG"):
        read_image(tmp_path / "text.png")
    with pytest.raises(ImageError, match="no such file"):
        read_image(tmp_path / "absent.png")
    with pytest.raises(ImageError):
        read_image(tmp_path)
    (tmp_path / "tiff.tif").write_bytes(b"II*\0" + bytes(40))
    with pytest.raises(ImageError, match=r"tiff\.tif"):
        read_image(tmp_path / "tiff.tif")


@given(st.binary(max_size=200), st.sampled_from([b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"II*\0", b"BM", b""]))
def test_any_bytes_give_an_image_or_an_image_error(tmp_path_factory, data: bytes, magic: bytes) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "x.png"
    path.write_bytes(magic + data)
    try:
        image = read_image(path)
    except ImageError as error:
        assert str(path) in str(error)  # noqa: PT017
    else:
        assert image.ndim == 3


def test_arrays() -> None:
    assert to_rgb8(RGB) is RGB
    np.testing.assert_array_equal(to_rgb8(DEEP[:, :, :3]), scaled(DEEP[:, :, :3]))
    np.testing.assert_array_equal(to_rgb8(RGB[:, :, 0])[:, :, 2], RGB[:, :, 0])
    np.testing.assert_array_equal(to_rgb8(RGB[:, :, 0] > 99)[:, :, 0], (RGB[:, :, 0] > 99) * 255)
    for bad in (RGB.astype(np.float32), RGB[0, 0], np.zeros((0, 4, 3), np.uint8), np.zeros((5, 4, 5), np.uint8)):
        with pytest.raises(ImageError, match="mine"):
            to_rgb8(bad, "mine")


def test_folders_are_listed_in_natural_order(tmp_path: Path) -> None:
    names = ["10.png", "2.PNG", "a1.jpeg", "A10.tif", "a2.bmp", "02.png", "note.txt", ".hidden.png"]
    for name in [*names, "sub/1.png"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    listed = [p.relative_to(tmp_path).as_posix() for p in list_images(tmp_path)]
    assert listed == ["02.png", "2.PNG", "10.png", "a1.jpeg", "a2.bmp", "A10.tif"]
    assert "sub/1.png" in [p.relative_to(tmp_path).as_posix() for p in list_images(tmp_path, recursive=True)]


def test_folders_without_images(tmp_path: Path) -> None:
    with pytest.raises(EmptyFolderError, match=str(tmp_path)):
        list_images(tmp_path)
    with pytest.raises(DataError, match="does not exist"):
        list_images(tmp_path / "absent")
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="not a folder"):
        list_images(tmp_path / "file")


@given(st.lists(st.text(max_size=6), max_size=8), st.randoms())
def test_natural_order_is_total(names: list[str], random) -> None:
    shuffled = names.copy()
    random.shuffle(shuffled)
    assert sorted(names, key=natural_key) == sorted(shuffled, key=natural_key)


def test_a_folder_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_: object) -> object:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", refused)
    with pytest.raises(DataError, match="cannot be listed"):
        list_images(tmp_path)
