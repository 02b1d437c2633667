"""The same picture gives the same pixels by every door, and what is no picture a typed error that says what to give."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from images.generated import KINDS, MODES, Items, check_doors, generated, picture, write_png16
from PIL import Image
from small_fits import estimator, pictures

from inreach_fast.errors import ImageError, InReachError, ParameterError, PixelRangeWarning
from inreach_fast.images.pixels import PixelRule
from inreach_fast.images.reading import as_image, is_single_image, read_image
from inreach_fast.images.source import open_images, single_images

# A run by hand takes more: INREACH_GENERATED=2000.
GENERATED = int(os.environ.get("INREACH_GENERATED", 2 * len(KINDS)))
RNG = np.random.default_rng(9)
EIGHT = RNG.integers(0, 256, (11, 9, 4), dtype=np.uint8)
DEEP = RNG.integers(0, 65536, (11, 9, 4), dtype=np.uint16)
RGB = np.ascontiguousarray(EIGHT[:, :, :3])


def grey(values: Any) -> Any:
    return np.repeat(np.asarray(values, np.uint8)[:, :, None], 3, axis=2)


@pytest.mark.filterwarnings("ignore")  # Pillow's, of damaged files
def test_generated_files_are_the_same_by_every_door(tmp_path: Path) -> None:
    outcomes = [check_doors(seed, tmp_path) for seed in range(GENERATED)]
    assert outcomes.count("read") > GENERATED // 3
    assert outcomes.count("refused") > GENERATED // 10


def test_generated_files_have_every_kind() -> None:
    words = {generated(seed)[0].split(" ")[1] for seed in range(len(KINDS))}
    assert words == {kind for kind in MODES if MODES[kind]}


# ------------------------------------------------------------------------------------------------- the right values


@pytest.mark.parametrize("mode", ["1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "I;16", "I;16B", "F"])
def test_pil_images_of_every_mode(mode: str) -> None:
    alpha = EIGHT[:, :, 3:].astype(np.float64) / 255
    colours = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [9, 8, 7]], np.float64)[EIGHT[:, :, 0] % 4]
    luminance = np.asarray(Image.fromarray(RGB).convert("L")).astype(np.float64)[:, :, None]
    first, deep = EIGHT[:, :, :1].astype(np.float64), DEEP[:, :, :1] / 257
    expected = {
        "1": np.asarray(Image.fromarray(RGB).convert("1"))[:, :, None] * 255.0,
        "L": luminance, "LA": first * alpha, "La": first * alpha, "P": colours, "PA": colours * alpha,
        "RGB": RGB.astype(np.float64), "RGBA": RGB * alpha, "RGBa": RGB * alpha,
        "I;16": deep, "I;16B": deep, "F": deep,
    }[mode]  # fmt: skip
    found = as_image(picture(mode, EIGHT, DEEP))
    # Premultiplied samples have been rounded once before.
    assert np.abs(found - expected).max() <= (1.5 if mode in ("La", "RGBa") else 0.5 + 1e-4)


@pytest.mark.parametrize("image", [picture("I", EIGHT, DEEP), Image.new("L", (0, 3))])
def test_pil_images_without_a_conversion(image: Image.Image) -> None:
    with pytest.raises(ImageError, match=r"mine: .*(int32|no pixels).*;"):
        as_image(image, "mine")


def test_a_transparent_colour_is_black(tmp_path: Path) -> None:
    image = Image.fromarray(EIGHT[:, :, 0] % 4)
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255, 9, 8, 7])
    image.save(tmp_path / "a.png", transparency=2)
    expected = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 0], [9, 8, 7]], np.uint8)[EIGHT[:, :, 0] % 4]
    for source in (tmp_path / "a.png", Image.open(tmp_path / "a.png")):
        np.testing.assert_array_equal(as_image(source), expected)
    deep = DEEP[:, :, 0] % 3 + 30000
    Image.fromarray(deep).save(tmp_path / "b.png", transparency=30001)
    expected = np.where(deep == 30001, 0, 117)  # 30000 / 257 = 116.7
    for source in (tmp_path / "b.png", Image.open(tmp_path / "b.png")):
        np.testing.assert_array_equal(as_image(source), grey(expected))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
def test_the_orientation_of_pil_images_is_applied(tmp_path: Path, suffix: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(RGB).save(tmp_path / f"a.{suffix}", exif=exif, **({"lossless": True} if suffix == "webp" else {}))
    turned = RGB if orientation < 5 else RGB.swapaxes(0, 1)
    turned = turned[:: -1 if orientation in (3, 4, 7, 8) else 1, :: -1 if orientation in (2, 3, 6, 7) else 1]
    loaded = Image.open(io.BytesIO((tmp_path / f"a.{suffix}").read_bytes()))
    loaded.load()
    for source in (tmp_path / f"a.{suffix}", Image.open(tmp_path / f"a.{suffix}"), loaded, loaded.copy()):
        np.testing.assert_array_equal(as_image(source), turned)


@pytest.mark.parametrize("orientation", [1, 3, 6, 7])
@pytest.mark.parametrize("samples", ["rgba", "rgb16", "cmyk"])
def test_tiffs_on_their_side(tmp_path: Path, samples: str, orientation: int) -> None:
    stored = {"rgba": EIGHT, "rgb16": DEEP[:, :, :3], "cmyk": EIGHT}[samples]
    options: dict[str, Any] = {"photometric": "separated" if samples == "cmyk" else "rgb"}
    if samples == "rgba":
        options["extrasamples"] = ["unassalpha"]
    for name, tag in (("upright", 1), ("turned", orientation)):
        tifffile.imwrite(tmp_path / f"{name}.tif", stored, extratags=[(274, "H", 1, tag, True)], **options)
    upright = read_image(tmp_path / "upright.tif")
    expected = {1: upright, 3: upright[::-1, ::-1], 6: np.rot90(upright, -1), 7: upright[::-1, ::-1].swapaxes(0, 1)}
    for source in (tmp_path / "turned.tif", Image.open(tmp_path / "turned.tif")):
        np.testing.assert_array_equal(as_image(source), expected[orientation])


@pytest.mark.parametrize("lossless", ["webp", "gif", "tif", "jp2"])
def test_further_formats_and_first_frames(tmp_path: Path, lossless: str) -> None:
    first, second = RGB // 64 * 64, RGB // 64 * 64 + 40  # few colours, so that a GIF keeps them
    options: dict[str, Any] = {"webp": {"lossless": True}, "jp2": {"irreversible": False}}.get(lossless, {})
    if lossless != "jp2":
        options |= {"save_all": True, "append_images": [Image.fromarray(second)]}
    Image.fromarray(first).save(tmp_path / f"a.{lossless}", **options)
    for source in (
        tmp_path,
        [tmp_path / f"a.{lossless}"],
        [Image.open(tmp_path / f"a.{lossless}")],
        [(tmp_path / f"a.{lossless}").read_bytes()],
    ):
        np.testing.assert_array_equal(open_images(source).load(0), first)


def test_a_pil_image_is_at_a_frame(tmp_path: Path) -> None:
    pages = [Image.fromarray(RGB), Image.fromarray(RGB[::-1])]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    with Image.open(tmp_path / "a.tif") as image:
        image.seek(1)
        np.testing.assert_array_equal(as_image(image), RGB[::-1])
        image.seek(0)
        np.testing.assert_array_equal(as_image(image), RGB)


def test_a_pil_image_that_was_changed_or_reduced(tmp_path: Path) -> None:
    Image.fromarray(np.full((64, 64, 3), 90, np.uint8)).save(tmp_path / "a.png")
    Image.fromarray(np.full((64, 64, 3), 90, np.uint8)).save(tmp_path / "a.jpg")
    image = Image.open(tmp_path / "a.png")
    image.putpixel((0, 0), (1, 2, 3))
    assert as_image(image)[0, 0].tolist() == [1, 2, 3]
    reduced = Image.open(tmp_path / "a.jpg")
    reduced.draft("RGB", (16, 16))
    assert as_image(reduced).shape == (16, 16, 3)


def test_a_broken_pil_image_stays_broken(tmp_path: Path) -> None:
    Image.fromarray(RNG.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:2000])
    image = Image.open(tmp_path / "a.png")
    for _ in range(3):  # Pillow would take it for loaded from the second time on
        with pytest.raises(ImageError, match=r"images\[0\].*truncated"):
            open_images([image, image]).load(0)
    images = pictures(5)
    model = estimator(min_channel_length=1).fit([*map(Image.fromarray, images), image], skip_bad=True)
    assert (model.n_images_, model.report_["skipped_names"]) == (5, ["images[5]"])


def test_16_bit_colour_that_pillow_has_cut_to_8_bits_is_refused(tmp_path: Path) -> None:
    write_png16(tmp_path / "a.png", DEEP[:, :, :3])
    tifffile.imwrite(tmp_path / "a.tif", DEEP[:, :, :3], photometric="rgb")
    expected = ((DEEP[:, :, :3].astype(np.int64) + 128) // 257).astype(np.uint8)
    for suffix in ("png", "tif"):
        image = Image.open(tmp_path / f"a.{suffix}")
        np.testing.assert_array_equal(as_image(image), expected)
        np.testing.assert_array_equal(as_image(image), expected)
        image.load()
        with pytest.raises(ImageError, match=r"16-bit colour.*give its path"):
            as_image(image)


# -------------------------------------------------------------------------------------------------------- bit depth


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_bit_depth_keeps_the_grey_levels(tmp_path: Path, bits: int) -> None:
    top = 2**bits - 1
    values = np.linspace(0, top, 99).astype(np.uint16).reshape(11, 9)
    Image.fromarray(values).save(tmp_path / "a.png")
    tifffile.imwrite(tmp_path / "a.tif", values)
    expected = grey(np.rint(values * (255 / top)))
    rule = PixelRule(bit_depth=bits)
    tensor = torch.from_numpy(values.astype(np.int32))
    for source in (tmp_path / "a.png", tmp_path / "a.tif", Image.fromarray(values), values, values.astype(np.int64),
                   tensor, picture("I", EIGHT, values[:, :, None])):  # fmt: skip
        np.testing.assert_array_equal(as_image(source, rule=rule), expected)
    # 8-bit images are what they are.
    np.testing.assert_array_equal(as_image(RGB, rule=rule), RGB)
    if bits < 16:
        with pytest.raises(ImageError, match=rf"mine: uint16 samples.*{bits} bits.*bit_depth"):
            as_image(values + np.uint16(1), "mine", rule)


def test_bits_that_the_format_states(tmp_path: Path) -> None:
    """A 12-bit TIFF, packed: two samples in three bytes."""
    values = RNG.integers(0, 4096, (6, 8), dtype=np.uint16)
    pairs = values.reshape(-1, 2).astype(np.uint32)
    packed = np.stack([pairs[:, 0] >> 4, (pairs[:, 0] & 15) << 4 | pairs[:, 1] >> 8, pairs[:, 1] & 255], 1)
    entries = [(256, 3, 1, 8), (257, 3, 1, 6), (258, 3, 1, 12), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 8),
               (277, 3, 1, 1), (278, 3, 1, 6), (279, 4, 1, 72)]  # fmt: skip
    directory = b"".join(
        tag.to_bytes(2, "little")
        + kind.to_bytes(2, "little")
        + count.to_bytes(4, "little")
        + value.to_bytes(4, "little")
        for tag, kind, count, value in entries
    )
    header = b"II*\0" + (8 + 72).to_bytes(4, "little")
    data = header + packed.astype(np.uint8).tobytes() + len(entries).to_bytes(2, "little") + directory + bytes(4)
    (tmp_path / "a.tif").write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for source in (tmp_path / "a.tif", data, Image.open(tmp_path / "a.tif")):
            np.testing.assert_array_equal(as_image(source), grey(np.rint(values * (255 / 4095))))


@pytest.mark.parametrize(("high", "used"), [(200, 8), (1023, 10), (4095, 12), (4096, 14), (16383, 14)])
def test_a_small_part_of_16_bits_is_said(high: int, used: int) -> None:
    values = np.full((8, 9), high, np.uint16)
    for source in (values, Image.fromarray(values)):
        with pytest.warns(PixelRangeWarning, match=rf"bit_depth={used} "):
            as_image(source)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        as_image(values, rule=PixelRule(bit_depth=16))
        as_image(np.full((8, 9), 16384, np.uint16))
        as_image(np.zeros((8, 9), np.uint16))


def test_bit_depth_is_the_models(tmp_path: Path) -> None:
    images = [image[:, :, 0].astype(np.uint16) * 16 for image in pictures(6)]
    model = estimator(bit_depth=12, min_channel_length=1).fit(images)
    model.save(tmp_path / "m")
    loaded = type(model).load(tmp_path / "m", backbone=model.backbone)
    assert loaded.parameters.bit_depth == 12
    probe = np.rint(images[0] * (255 / 4095)).astype(np.uint8)
    assert loaded.predict(images[0]).score == model.predict(probe).score == model.predict(images[0]).score
    assert next(loaded.predict_stream([images[0]])).score == model.predict(probe).score
    Image.fromarray(images[0]).save(tmp_path / "a.png")
    assert loaded.predict(tmp_path / "a.png").score == model.predict(probe).score
    assert np.array_equal(model.training_scores(images), model.training_scores())


# ------------------------------------------------------------------------------------------------ arrays and shapes


@pytest.mark.parametrize("as_form", [np.asarray, torch.from_numpy])
def test_shapes_of_arrays_and_tensors(as_form: Callable[[Any], Any]) -> None:
    one, alpha = np.ascontiguousarray(EIGHT[:, :, 0]), np.full((11, 9, 1), 255, np.uint8)
    first = np.ascontiguousarray(RGB.transpose(2, 0, 1))
    for array, expected in (
        (one, grey(one)),
        (one[:, :, None], grey(one)),
        (one[None], grey(one)),
        (np.dstack([one, alpha[:, :, 0]]), grey(one)),
        (RGB, RGB),
        (first, RGB),
        (np.dstack([RGB, alpha]), RGB),
        (np.ascontiguousarray(np.dstack([RGB, alpha]).transpose(2, 0, 1)), RGB),
        (first[None], RGB),
        (RGB[None], RGB),
    ):
        np.testing.assert_array_equal(as_image(as_form(array)), expected)
    for single in (one, RGB, first, one[None]):
        assert is_single_image(as_form(single))
    for several in (np.stack([one] * 5), np.stack([RGB] * 3), np.stack([first] * 3), np.stack([one, one])):
        assert not is_single_image(as_form(several))
        expected = RGB if several.ndim == 4 else grey(one)
        source = open_images(as_form(several))
        assert len(source) == len(several)
        np.testing.assert_array_equal(source.load(1), expected)


@pytest.mark.parametrize("shape", [(3, 9, 3), (3, 4, 4), (1, 9, 1), (4, 9, 2)])
def test_shapes_that_can_be_read_in_two_ways(shape: tuple[int, ...]) -> None:
    for form in (np.zeros(shape, np.uint8), torch.zeros(shape)):
        with pytest.raises(ImageError, match=r"mine: .*first or last; give \(H, W, 3\)"):
            as_image(form, "mine")


def test_four_grey_images_or_one_with_alpha() -> None:
    for form in (np.zeros((4, 9, 8), np.uint8), torch.zeros((4, 9, 8))):
        with pytest.raises(ParameterError, match=r"images: shape \(4, 9, 8\).*give \(4, H, W, 1\)"):
            open_images(form)
    assert len(open_images(np.zeros((4, 9, 8, 1), np.uint8))) == 4


@pytest.mark.parametrize(
    ("item", "says"),
    [
        (np.array(3, np.uint8), "shape"),
        (np.zeros((2, 3, 9, 9), np.uint8), "batch of 2"),
        (np.zeros((9, 9), np.complex64), "complex64"),
        (np.zeros((9, 9), object), "object"),
        (np.array("text"), "shape|dtype"),
        (np.zeros((9, 9), np.int16), "int16 samples have no defined range.*bit_depth"),
        (torch.zeros((9, 9), dtype=torch.int64), "int64 samples have no defined range.*bit_depth"),
        (torch.zeros((9, 9), dtype=torch.int8), "int8"),
        (np.full((9, 9), np.nan), r"nan.*0\.\.1"),
        (np.full((9, 9), 1.5, np.float16), r"float16 values.*0\.\.1"),
        (np.full((9, 9), 77.0), r"0\.\.1.*uint8"),
        (np.full((9, 9), 1.002), r"0\.\.1"),
        (np.full((9, 9), -0.002), r"0\.\.1"),
        (torch.zeros(9, 9, dtype=torch.complex64), "complex64"),
        (np.ma.masked_less(np.zeros((9, 9)), 1), "masked"),
        (torch.zeros((9, 9), device="meta"), "meta"),
        (b"", "empty"),
        (b"no image", "not a PNG"),
        (memoryview(b""), "empty"),
        (io.BytesIO(), "empty"),
        (io.StringIO("text"), "'rb'"),
        (io.BufferedReader(io.FileIO(os.pipe()[0])), None),
        (None, "NoneType"),
        (7, "int"),
        ([], "empty list"),
        ((), "empty tuple"),
        ({}, "without the key 'image'"),
        ({"img": 3, "label": 2}, "its keys: 'img', 'label'"),
        ([RGB, RGB], "list of 2 images"),
        (["a.png", "b.PNG"], "list of 2 images"),
        ([[0, 1], [2, 3]], "int"),
        ("a\0b.png", "cannot be opened"),
        (Path("/"), "opened|folder|directory"),
    ],
)
def test_what_is_no_image_is_a_typed_error(item: Any, says: str | None) -> None:
    if says is None:
        item.close()  # a file object that the caller has closed
        says = "closed"
    with pytest.raises(ImageError, match=f"(?i){says}") as caught:
        as_image(item, "mine")
    assert ";" in str(caught.value)


def test_an_endless_item_ends() -> None:
    item: list[Any] = []
    item.append(item)
    with pytest.raises(ImageError, match="within each other"):
        as_image(item)
    assert len(open_images([item, item])) == 2


def test_floats_that_round_into_the_range() -> None:
    """Resampling overshoots by the last bits."""
    values = np.array([[-1e-7, 1 + 1e-7, 0.5, 254.4 / 255]] * 5)
    assert as_image(values)[0, :, 0].tolist() == [0, 255, 128, 254]


def test_a_memoryview_of_pixels() -> None:
    np.testing.assert_array_equal(as_image(memoryview(RGB)), RGB)


# ------------------------------------------------------------------------------------------- Datasets and DataLoaders


class Failing(Items):
    def __getitem__(self, number: int) -> Any:
        if number == 1:
            raise OSError("disk on fire")
        return super().__getitem__(number)


class Unmeasured(Items):
    def __len__(self) -> int:
        raise NotImplementedError("no length")


class Endless(torch.utils.data.IterableDataset[Any]):
    """Iterable, with a length, and a __getitem__ that it inherits and that raises."""

    def __iter__(self) -> Any:
        return iter([RGB] * 3)

    def __len__(self) -> int:
        return 3


def test_a_dataset_that_fails_is_an_image_error() -> None:
    source = open_images(Failing([RGB] * 3))
    np.testing.assert_array_equal(source.load(2), RGB)
    with pytest.raises(ImageError, match=r"images\[1\].*OSError: disk on fire"):
        source.load(1)


def test_iterables_and_arrays_of_paths(tmp_path: Path) -> None:
    Image.fromarray(RGB).save(tmp_path / "a.png")
    paths = np.array([str(tmp_path / "a.png")] * 2)
    for images in (Endless(), paths, paths.astype(object), iter([RGB, RGB])):
        source = open_images(images)
        np.testing.assert_array_equal(source.load(1), RGB)


def test_batches_of_a_data_loader() -> None:
    first = torch.from_numpy(np.ascontiguousarray(RGB.transpose(2, 0, 1)))
    one = torch.from_numpy(np.ascontiguousarray(EIGHT[:, :, 0]))

    def loaded(items: list[Any], size: int | None, **options: Any) -> list[Any]:
        loader = torch.utils.data.DataLoader(Items(items), batch_size=size, **options)
        source = open_images(loader)
        return [source.load(i) for i in range(len(source))]

    same = {"collate_fn": lambda items: items}
    for found, expected, count in (
        (loaded([first] * 5, 2), RGB, 5),
        (loaded([(first, 0)] * 5, 2), RGB, 5),
        (loaded([(first, first[:1])] * 5, 2), RGB, 5),  # with a mask each
        (loaded([{"image": first, "label": "good"}] * 5, 2), RGB, 5),
        (loaded([one] * 5, 3), grey(one), 5),  # grey, in batches of three
        (loaded([(one, 0)] * 5, 3), grey(one), 5),
        (loaded([first] * 5, None), RGB, 5),
        (loaded([(first, 0)] * 2, 1, collate_fn=lambda items: items[0]), RGB, 2),
        (loaded([Image.fromarray(RGB)] * 5, 2, **same), RGB, 5),
        (loaded([(Image.fromarray(RGB), 0)] * 5, 2, **same), RGB, 5),
        (loaded([(first, 0)] * 5, 2, **same), RGB, 5),
    ):
        assert len(found) == count
        assert all(np.array_equal(image, expected) for image in found)
    with pytest.raises(ParameterError, match=r"batch 0: .*collate_fn"):
        loaded([first] * 3, 3, **same)  # three colour images, or a batch of grey ones and two more
    assert [image.shape for image in single_images([torch.zeros(2, 3, 9, 9), RGB])] == [(3, 9, 9), (3, 9, 9), RGB.shape]


def test_paths_in_batches(tmp_path: Path) -> None:
    paths = [str(tmp_path / f"{i}.png") for i in range(3)]
    for i, path in enumerate(paths):
        Image.fromarray(RGB + np.uint8(i)).save(path)
    for items in (paths, [(path, 0) for path in paths], [{"image": path} for path in paths]):
        source = open_images(torch.utils.data.DataLoader(Items(items), batch_size=2))
        assert source.names == paths
        np.testing.assert_array_equal(source.load(2), RGB + np.uint8(2))
    with pytest.raises(ParameterError, match=r"batch 0: .*collate_fn"):  # paths and masks, or paths and labels
        open_images(torch.utils.data.DataLoader(Items([(path, "good") for path in paths]), batch_size=2))


def test_what_is_no_collection_is_a_typed_error() -> None:
    for images in (None, 7, int, "a" * 5000, "a\0b", {"img": 1}):
        with pytest.raises(InReachError):
            open_images(images).load(0)
    with pytest.raises(ParameterError, match=r"images: a Unmeasured without a length .*; give a list"):
        open_images(Unmeasured([RGB]))
    model = estimator(min_channel_length=1).fit(pictures(4))
    with pytest.raises(ParameterError, match=r"images: expected an iterable"):
        model.predict_stream(7)  # type: ignore[arg-type]


def test_scores_are_the_same_by_every_door(tmp_path: Path) -> None:
    images = pictures(8)
    model = estimator(min_channel_length=1).fit(images)
    for i, pixels in enumerate(images):
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    tensors = [torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1))) for pixels in images]
    expected = model.predict(images).score
    data = (tmp_path / "3.png").read_bytes()
    for item in (tmp_path / "3.png", data, io.BytesIO(data), memoryview(data), Image.open(tmp_path / "3.png"),
                 images[3], tensors[3], tensors[3].permute(1, 2, 0), (tensors[3] / 255).to(torch.bfloat16),
                 {"image": tensors[3]}):  # fmt: skip
        assert model.predict(item).score == expected[3]
        assert next(model.predict_stream([item])).score == expected[3]
        assert model.predict([(item, 0)]).score.tolist() == [expected[3]]
    loader = torch.utils.data.DataLoader(Items([{"image": t, "label": 0} for t in tensors]), batch_size=3)
    collections = (
        tmp_path,
        np.stack(images),
        torch.stack(tensors),
        Items(tensors),
        loader,
        {"image": torch.stack(tensors)},
    )
    for collection in collections:
        assert np.array_equal(model.predict(collection).score, expected)
    assert np.array_equal([one.score for one in model.predict_stream(loader)], expected)
    again = estimator(min_channel_length=1).fit(loader)
    assert np.array_equal(again.nominal_.patches, model.nominal_.patches)
    assert again.threshold_ == model.threshold_


# ---------------------------------------------------------------------------------------------------- the pixel limit


def test_the_pixel_limit_is_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)  # what Pillow would refuse
    for suffix in ("png", "tif", "webp", "gif", "jp2", "bmp"):
        path = tmp_path / f"a.{suffix}"
        Image.fromarray(RGB).save(path)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert read_image(path).shape == RGB.shape
            assert read_image(path, PixelRule(max_pixels=99)).shape == RGB.shape
            with pytest.raises(ImageError, match=r"11x9 is 99 pixels.*max_pixels=98; .*--max-pixels"):
                read_image(path, PixelRule(max_pixels=98))
    assert Image.MAX_IMAGE_PIXELS == 20
    for source in (RGB, Image.fromarray(RGB)):
        with pytest.raises(ImageError, match="max_pixels=98"):
            as_image(source, rule=PixelRule(max_pixels=98))
