"""A cache of image descriptors on disk, so that several evaluations of one class run the backbone once.

A protocol of 3 seeds and 3 corruption levels shows the same images to the same backbone nine times over. Each
image's descriptors (P, dim) float32, before position channels, lie in one ``.npy`` file named by a sha256
over everything that they depend on: the network-input pixels (so geometry and rotation are in it), the
backbone's fingerprint and the describe parameters. A file is written aside and then renamed: a reader, also
one in another process, never sees half of it. A 224x224 image takes 12.8 MB (3136 x 1024 x 4); the folder may
be deleted at any time.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import SaveError

UInt8Array = NDArray[np.uint8]
FloatArray = NDArray[np.float32]
Describe = Callable[[UInt8Array], FloatArray]


class FeatureCache:
    """Descriptors by content, below one folder. ``hits`` and ``misses`` count images since it was opened."""

    def __init__(self, folder: str | Path) -> None:
        """Raises SaveError naming the folder when it cannot be made."""
        self.folder = Path(folder)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SaveError(f"{self.folder}: the cache folder cannot be made ({error}); choose another") from error
        self.hits = 0
        self.misses = 0

    def wrap(self, describe: Describe, *, fingerprint: str | Callable[[], str]) -> Describe:
        """``describe`` with this cache before it.

        describe: uint8 (B,h,w,3) network inputs -> float32 (B,P,dim). fingerprint: names all else that the
        result depends on (backbone, levels, dim, neighbourhood); a callable is asked at the first batch, so
        that wrapping loads no backbone.
        """

        def cached(batch: UInt8Array) -> FloatArray:
            name = fingerprint() if callable(fingerprint) else fingerprint
            paths = [self._path(image, name) for image in batch]
            found: list[FloatArray | None] = [_read(path) for path in paths]
            missing = [i for i, rows in enumerate(found) if rows is None]
            self.hits += len(found) - len(missing)
            self.misses += len(missing)
            if missing:
                # All of them in one go: a batch that is wholly new costs nothing more than without the cache.
                new = describe(batch if len(missing) == len(batch) else np.ascontiguousarray(batch[missing]))
                for i, rows in zip(missing, new, strict=True):
                    _write(paths[i], rows)
                    found[i] = rows
                if len(missing) == len(batch):
                    return new
            return np.stack([rows for rows in found if rows is not None])

        return cached

    def _path(self, image: UInt8Array, fingerprint: str) -> Path:
        key = hashlib.sha256()
        key.update(f"inreach_fast descriptors 1|{fingerprint}|{image.dtype.str}|{image.shape}|".encode())
        key.update(np.ascontiguousarray(image).data)
        name = key.hexdigest()
        return self.folder / name[:2] / f"{name}.npy"


def _read(path: Path) -> FloatArray | None:
    """The memory-mapped rows, or None where the file is absent or unusable (cut short): it is then
    computed anew.
    """
    try:
        rows: Any = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return rows if rows.dtype == np.float32 and rows.ndim == 2 else None


def _write(path: Path, rows: FloatArray) -> None:
    temporary: str | None = None
    try:
        path.parent.mkdir(exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".part")
        with os.fdopen(handle, "wb") as file:
            np.save(file, np.ascontiguousarray(rows, dtype=np.float32), allow_pickle=False)
        os.replace(temporary, path)
    except OSError as error:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        raise SaveError(
            f"{path}: the cached descriptors cannot be written ({error}); free space or drop the cache"
        ) from error
