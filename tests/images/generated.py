"""Image files of every format, mode, size and damage, made from a seed, and the forms in which an image is given."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import torch
from PIL import Image, features

from inreach_fast.errors import InReachError
from inreach_fast.images.decoding import FORMATS
from inreach_fast.images.pixels import PixelRule
from inreach_fast.images.reading import as_image as as_image_by
from inreach_fast.images.reading import read_image
from inreach_fast.images.source import ImageSource
from inreach_fast.images.source import open_images as open_images_by

# Damage to a header makes huge images, which take their time.
RULE = PixelRule(max_pixels=100_000)
Pixels = np.ndarray[Any, np.dtype[np.uint8]]
SIZES = [(1, 1), (1, 7), (3, 5), (4, 4), (5, 3), (8, 8), (13, 17), (31, 24), (40, 33)]
MODES = {
    "PNG": ["1", "L", "LA", "P", "P+key", "RGB", "RGB+key", "L+key", "RGBA", "I;16",
            "deep1", "deep2", "deep3", "deep4"],
    "JPEG": ["L", "RGB", "CMYK"],
    "TIFF": ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "I;16", "I;16B", "I", "F", "float64",
             "int16", "uint32", "planar", "deep3", "deep4", "pages", "white"],
    "BMP": ["1", "L", "P", "RGB", "RGBA"],
    "GIF": ["L", "P", "P+key", "frames"],
    "WEBP": ["RGB", "RGBA", "frames"] if features.check("webp") else [],
    "JPEG2000": ["L", "LA", "RGB", "RGBA", "I;16"] if features.check("jpg_2000") else [],
}  # fmt: skip
KINDS = [(kind, mode) for kind, modes in MODES.items() for mode in modes]
DAMAGE = ["none"] * 6 + ["cut", "cut", "flipped", "flipped", "empty", "noise"]
SUFFIX = {"PNG": "png", "JPEG": "jpg", "TIFF": "tif", "BMP": "bmp", "GIF": "gif", "WEBP": "webp", "JPEG2000": "jp2"}


def as_image(item: Any) -> Pixels:
    return as_image_by(item, rule=RULE)


def open_images(images: Any) -> ImageSource:
    return open_images_by(images, rule=RULE)


def write_png16(file: Any, samples: np.ndarray) -> None:
    """A 16-bit PNG with the filter "sub" on every second row, which Pillow cannot write; to a path or an open file."""
    height, width, channels = samples.shape
    colour_type = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    rows = b""
    for y, row in enumerate(samples.astype(">u2").reshape(height, -1)):
        raw = np.frombuffer(row.tobytes(), np.uint8)
        if y % 2:
            step = 2 * channels
            left = np.concatenate([np.zeros(step, np.uint8), raw[:-step]])
            rows += b"\x01" + (raw - left).tobytes()
        else:
            rows += b"\x00" + raw.tobytes()

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    if isinstance(file, Path):
        file.write_bytes(data)
    else:
        file.write(data)


def generated(seed: int) -> tuple[str, bytes]:
    """What the file holds, in words, and its bytes."""
    rng = np.random.default_rng(seed)
    kind, mode = KINDS[seed % len(KINDS)]
    height, width = SIZES[int(rng.integers(len(SIZES)))]
    orientation = int(rng.integers(1, 9)) if rng.random() < 0.4 else 1
    damage = str(rng.choice(DAMAGE))
    file = io.BytesIO()
    _write(file, kind, mode, (height, width), orientation, rng)
    data = bytearray(file.getvalue())
    if damage == "cut":
        del data[int(rng.integers(len(data))) :]
    elif damage == "flipped":
        for place in rng.integers(len(data), size=int(rng.integers(1, 6))):
            data[place] ^= int(rng.integers(1, 256))
    elif damage == "empty":
        data.clear()
    elif damage == "noise":
        data[int(rng.integers(len(data))) :] = rng.bytes(50)
    return f"{seed}: {kind} {mode} {height}x{width} orientation {orientation} {damage}", bytes(data)


def _write(file: Any, kind: str, mode: str, size: tuple[int, int], orientation: int, rng: Any) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options: dict[str, Any] = {} if kind in ("BMP", "GIF", "JPEG2000") or orientation == 1 else {"exif": exif}
    eight = rng.integers(0, 256, (*size, 4), dtype=np.uint8)
    deep = rng.integers(0, 65536, (*size, 4), dtype=np.uint16)
    if mode.startswith("deep"):
        channels = int(mode[-1])
        if kind == "PNG":
            write_png16(file, deep[:, :, :channels])
        else:
            extra = {"extrasamples": ["unassalpha"]} if channels == 4 else {}
            tags = [(274, "H", 1, orientation, True)]
            tifffile.imwrite(file, deep[:, :, :channels], photometric="rgb", extratags=tags, **extra)
    elif mode in ("float64", "int16", "uint32"):
        values = rng.random(size) if mode == "float64" else deep[:, :, 0].astype(mode)
        tifffile.imwrite(file, values)
    elif mode == "planar":
        tifffile.imwrite(file, np.moveaxis(deep[:, :, :3], -1, 0), photometric="rgb", planarconfig="separate")
    elif mode == "white":
        tifffile.imwrite(file, deep[:, :, 0], photometric="miniswhite")
    elif mode in ("frames", "pages"):
        first, second = (Image.fromarray(np.ascontiguousarray(pixels[:, :, :3])) for pixels in (eight, eight[::-1]))
        first.save(file, kind, save_all=True, append_images=[second], **({"lossless": True} if kind == "WEBP" else {}))
    else:
        picture(mode.removesuffix("+key"), eight, deep).save(
            file, kind, **options, **({"transparency": _key(mode, eight)} if mode.endswith("+key") else {})
        )


def _key(mode: str, eight: Pixels) -> Any:
    first = eight[0, 0]
    return tuple(map(int, first[:3])) if mode == "RGB+key" else int(first[0]) if mode == "L+key" else int(first[0]) % 4


def picture(mode: str, eight: Pixels, deep: Any) -> Image.Image:
    """A PIL image of a mode, of uint8 (H, W, 4) and uint16 (H, W, 4) samples."""
    if mode == "I;16B":
        height, width = deep.shape[:2]
        return Image.frombytes("I;16B", (width, height), deep[:, :, 0].astype(">u2").tobytes())
    if mode == "I;16":
        return Image.fromarray(np.ascontiguousarray(deep[:, :, 0]))
    if mode == "I":
        return Image.fromarray(deep[:, :, 0].astype(np.int32))
    if mode == "F":
        return Image.fromarray((deep[:, :, 0] / 65535).astype(np.float32))
    if mode in ("P", "PA"):
        flat = Image.fromarray(np.ascontiguousarray(eight[:, :, 0] % 4))
        flat.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255, 9, 8, 7])
        if mode == "PA":
            flat = flat.convert("PA")
            flat.putalpha(Image.fromarray(np.ascontiguousarray(eight[:, :, 3])))
        return flat
    if mode in ("La", "RGBa"):
        return picture(mode.upper(), eight, deep).convert(mode)
    if mode == "LA":
        return Image.fromarray(np.ascontiguousarray(eight[:, :, [0, 3]]))
    if mode == "RGBA":
        return Image.fromarray(eight)
    if mode == "LAB":
        height, width = eight.shape[:2]
        return Image.frombytes("LAB", (width, height), np.ascontiguousarray(eight[:, :, :3]).tobytes())
    return Image.fromarray(np.ascontiguousarray(eight[:, :, :3])).convert(mode)


class Items(torch.utils.data.Dataset[Any]):
    """A map-style Dataset."""

    def __init__(self, items: list[Any]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, number: int) -> Any:
        return self.items[number]


def file_doors(path: Path, data: bytes) -> Iterator[tuple[str, Callable[[], Any]]]:
    """The ways in for a file; each call gives the image."""
    yield "text path", lambda: as_image(str(path))
    yield "bytes", lambda: as_image(data)
    yield "bytearray", lambda: as_image(bytearray(data))
    yield "memoryview", lambda: as_image(memoryview(data))
    yield "BytesIO", lambda: as_image(io.BytesIO(data))
    yield "tuple of Dataset", lambda: open_images(Items([(data, 0)])).load(0)
    yield "dict of Dataset", lambda: open_images(Items([{"image": path, "label": 0}])).load(0)
    yield "list", lambda: open_images([io.BytesIO(data), data]).load(0)

    def opened() -> Any:
        with path.open("rb") as file:
            return as_image(file)

    yield "open file", opened


def picture_doors(path: Path, data: bytes) -> Iterator[tuple[str, Callable[[], Any]]]:
    """The ways in for the PIL image of a file; none if Pillow does not open it, or takes it for another format."""
    for words, source in (("path", path), ("memory", io.BytesIO(data))):
        try:
            opened = Image.open(source)
        except Exception:
            return
        if opened.format not in (*FORMATS, "MPO"):
            return
        yield f"PIL of {words}", lambda opened=opened: as_image(opened)
        yield f"PIL of {words} again", lambda opened=opened: as_image((opened, "label"))
        # Loaded from memory, a PNG no longer tells 16-bit colour; mapped from a file, Pillow shears a TIFF on its side.
        if (opened.format, words) in (("PNG", "memory"), ("TIFF", "path")):
            continue
        with suppress(Exception):  # Pillow's own, of a damaged file
            opened.load()
            yield f"PIL of {words}, loaded", lambda opened=opened: as_image(opened)


def pixel_doors(pixels: Pixels) -> Iterator[tuple[str, Any]]:
    """The ways in for pixels in memory: an image, or a collection that begins with it."""
    first = np.ascontiguousarray(pixels.transpose(2, 0, 1))
    tensor = torch.from_numpy(first)
    yield "HWC", as_image(pixels)
    yield "CHW", as_image(first)
    yield "one of four dimensions", as_image(first[None])
    yield "PIL in memory", as_image(Image.fromarray(pixels))
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        yield f"tensor {dtype}", as_image((tensor.to(torch.float64) / 255).to(dtype))
    for dtype in (np.float16, np.float32, np.float64):
        yield f"array {dtype}", as_image((pixels.astype(np.float64) / 255).astype(dtype))
    yield "tensor HWC", as_image(torch.from_numpy(pixels))
    yield "uint16", as_image(pixels.astype(np.uint16) * 257)
    yield "big-endian", as_image((pixels.astype(np.uint16) * 257).astype(">u2"))
    yield "with alpha", as_image(np.dstack([pixels, np.full(pixels.shape[:2], 255, np.uint8)]))
    yield "batch of arrays", open_images(np.stack([pixels, pixels])).load(0)
    yield "batch CHW", open_images(np.stack([first, first])).load(1)
    yield "batch of tensors", open_images(torch.stack([tensor, tensor])).load(1)
    for words, item in (
        ("tensors", tensor),
        ("tuples", (tensor / 255, 3)),
        ("dictionaries", {"image": tensor, "label": 3}),
    ):
        loader = torch.utils.data.DataLoader(Items([item] * 5), batch_size=2)
        source = open_images(loader)
        assert len(source) == 5
        yield f"DataLoader of {words}", source.load(4)


def check_doors(seed: int, folder: Path) -> str:
    """One generated file by every door: the pixels of its path, or an error of the package. Returns the outcome."""
    words, data = generated(seed)
    kind = KINDS[seed % len(KINDS)][0]
    path = folder / f"image.{SUFFIX[kind]}"
    path.write_bytes(data)

    def outcome(call: Callable[[], Any]) -> Any:
        try:
            return call()
        except InReachError as error:
            return error

    expected = outcome(lambda: read_image(path, RULE))
    broken = isinstance(expected, InReachError)
    assert not broken or str(path) in str(expected), words
    for door, call in chain(file_doors(path, data), picture_doors(path, data)):
        found = outcome(call)
        if door.endswith("loaded") and "Pillow" in str(found):  # which has not kept all of 16-bit colour
            continue
        assert isinstance(found, InReachError) == broken, f"{words}: {door}: {found}"
        assert broken or np.array_equal(found, expected), f"{words}: {door}: other pixels"
    if broken:
        return "refused"
    assert expected.dtype == np.uint8
    assert expected.flags.c_contiguous
    if min(expected.shape[:2]) > 4:  # smaller ones can be channels first or last
        for door, found in pixel_doors(expected):
            assert np.array_equal(found, expected), f"{words}: {door}: other pixels"
    return "read"
