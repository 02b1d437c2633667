"""The network inputs of all training images, with the sha256 of each: in memory while they are few, else in a file."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator

import numpy as np

from ..array_types import FloatArray, IndexArray, UInt8Array
from .files import byte_view
from .row_log import RowLog
from .workspace import Workspace


class InputStore:
    """uint8 (N, H, W, 3), appended once and read by number.

    Args:
        workspace: budget and files.
        size: (H, W). most: how many images there can be at most.
    """

    def __init__(self, workspace: Workspace, size: tuple[int, int], most: int) -> None:
        memory = workspace.budget.inputs
        self._log = RowLog(workspace, "inputs", (*size, 3), dtype=np.uint8, most_rows=most, memory=memory)
        self._digests: list[bytes] = []
        self._sizes: list[tuple[int, int]] = []

    def __len__(self) -> int:
        return len(self._digests)

    def append(self, image: UInt8Array, size: tuple[int, int]) -> None:
        """Adds the next image, (H, W, 3), made of one of ``size``; SpoolWriteError if the file cannot be written."""
        self._log.append(image[None])
        self._sizes.append(size)
        self._digests.append(array_digest(image))

    def __getitem__(self, number: int) -> UInt8Array:
        """Image ``number``, (H, W, 3); not to be written to."""
        if not 0 <= number < len(self):
            raise IndexError(number)
        image: UInt8Array = self._log.read(number, number + 1)[0]
        return image

    def __iter__(self) -> Iterator[UInt8Array]:
        return (self[number] for number in range(len(self)))

    def __contains__(self, image: object) -> bool:
        return any(image is mine for mine in self)

    @property
    def images(self) -> Collection[UInt8Array]:
        """The images to be gone over in their order: the array that holds them, or this store."""
        return self if self._log.array is None else self._log.array

    @property
    def sizes(self) -> IndexArray:
        """(height, width) of the images that these were made of, int64 (N, 2); 0 where that is not known."""
        return np.array(self._sizes, dtype=np.int64).reshape(-1, 2)

    @property
    def digests(self) -> UInt8Array:
        """sha256 of each image, uint8 (N, 32)."""
        return stacked_digests(self._digests)

    def finish(self) -> UInt8Array:
        """All images, read-only (N, H, W, 3), memory-mapped if they are in a file; ends the use of the store."""
        images: UInt8Array = self._log.finish()
        images.flags.writeable = False
        return images

    def close(self) -> None:
        """Releases memory and file."""
        self._log.close()


def array_digest(array: UInt8Array | FloatArray) -> bytes:
    """sha256 of an array's bytes."""
    return hashlib.sha256(byte_view(array)).digest()


def stacked_digests(digests: list[bytes]) -> UInt8Array:
    """Digests as uint8 (N, 32)."""
    return np.frombuffer(b"".join(digests), dtype=np.uint8).reshape(len(digests), 32)
