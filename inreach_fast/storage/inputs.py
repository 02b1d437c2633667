"""The network inputs of all training images, with the sha256 of each: in memory while they are few, else in a file."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator
from typing import BinaryIO

import numpy as np

from ..array_types import FloatArray, UInt8Array
from .files import byte_view, map_file, read_into, write_all
from .workspace import Workspace


class InputStore:
    """uint8 (N, H, W, 3), appended once and read by number.

    Args:
        workspace: budget and files.
        size: (H, W). most: how many images there can be at most.
    """

    def __init__(self, workspace: Workspace, size: tuple[int, int], most: int) -> None:
        self._workspace = workspace
        self._shape = (*size, 3)
        self._bytes = size[0] * size[1] * 3
        self._digests: list[bytes] = []
        self._array: UInt8Array | None = None
        self._file: BinaryIO | None = None
        if most * self._bytes <= workspace.budget.inputs:
            self._array = np.empty((most, *self._shape), dtype=np.uint8)
        else:
            self._file = workspace.open_file("inputs")
            self._file.truncate(0)

    def __len__(self) -> int:
        return len(self._digests)

    def append(self, image: UInt8Array) -> None:
        """Adds the next image, (H, W, 3); SpoolWriteError if the file cannot be written."""
        digest = array_digest(image)
        if self._array is not None:
            self._array[len(self)] = image
        else:
            assert self._file is not None
            with self._workspace.writing(self._bytes):
                write_all(self._file, image)
        self._digests.append(digest)

    def __getitem__(self, number: int) -> UInt8Array:
        """Image ``number``, (H, W, 3); not to be written to."""
        if not 0 <= number < len(self):
            raise IndexError(number)
        if self._array is not None:
            image: UInt8Array = self._array[number]
            return image
        assert self._file is not None
        out = np.empty(self._shape, dtype=np.uint8)
        read_into(self._file, number * self._bytes, out)
        return out

    def __iter__(self) -> Iterator[UInt8Array]:
        return (self[number] for number in range(len(self)))

    @property
    def images(self) -> Collection[UInt8Array]:
        """The images to be gone over in their order: the array that holds them, or this store."""
        return self if self._array is None else self._array[: len(self)]  # type: ignore[return-value]

    @property
    def digests(self) -> UInt8Array:
        """sha256 of each image, uint8 (N, 32)."""
        return stacked_digests(self._digests)

    def finish(self) -> UInt8Array:
        """All images, read-only (N, H, W, 3), memory-mapped if they are in a file; ends the use of the store."""
        shape = (len(self), *self._shape)
        if self._array is not None:
            images: UInt8Array = self._array[: len(self)]
        else:
            assert self._file is not None
            images = map_file(self._file, np.uint8, shape)
        self.close()
        images.flags.writeable = False
        return images

    def close(self) -> None:
        """Releases memory and file."""
        self._array = None
        if self._file is not None:
            self._file.close()


def array_digest(array: UInt8Array | FloatArray) -> bytes:
    """sha256 of an array's bytes."""
    return hashlib.sha256(byte_view(array)).digest()


def stacked_digests(digests: list[bytes]) -> UInt8Array:
    """Digests as uint8 (N, 32)."""
    return np.frombuffer(b"".join(digests), dtype=np.uint8).reshape(len(digests), 32)
