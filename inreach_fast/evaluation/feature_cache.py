"""A cache of image descriptors on disk, so that several evaluations of one class run the backbone once.

Each image's descriptors (P, dim) float32, without position channels, are in one ``.npy`` file. Its name is the sha256
of all they depend on: the network's input (which includes geometry and rotation), the backbone's fingerprint and the
parameters. A 224 x 224 image takes 12.8 MB (3136 x 1024 x 4 bytes). The folder may be deleted at any time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..array_types import FloatArray, UInt8Array
from ..errors import SaveError
from ..method.descriptors import Describer
from ..storage.files import whole_file

Describe = Callable[[UInt8Array], FloatArray]


class FeatureCache:
    """Descriptors by content, in one folder; ``hits`` and ``misses`` count images.

    Raises:
        SaveError: the folder cannot be created.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SaveError(f"{self.folder}: cannot be created ({error}); choose another cache folder") from error
        self.hits = 0
        self.misses = 0

    def wrap(self, describe: Describe, *, fingerprint: str | Callable[[], str]) -> Describe:
        """``describe`` with this cache.

        Args:
            describe: uint8 (B, h, w, 3) network inputs to float32 (B, P, dim).
            fingerprint: names everything else that the result depends on (backbone, levels, dim, neighbourhood). A
                function is called at each batch, so that wrapping loads no backbone.
        """

        def cached(batch: UInt8Array) -> FloatArray:
            name = fingerprint() if callable(fingerprint) else fingerprint
            paths = [self._path(image, name) for image in batch]
            found: list[FloatArray | None] = [_read(path) for path in paths]
            missing = [i for i, rows in enumerate(found) if rows is None]
            self.hits += len(found) - len(missing)
            self.misses += len(missing)
            if missing:
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


class CachedDescriber(Describer):
    """A describer with a cache of float32 descriptors; ``cached`` is what `FeatureCache.wrap` returns."""

    direct = False

    def __init__(self, describer: Describer, cached: Describe) -> None:
        super().__init__(lambda: describer.backbone, lambda: describer.parameters)
        self._cached = cached

    def __call__(self, batch: UInt8Array, precision: str = "float32") -> FloatArray:
        """See `Describer`; other precisions are not cached."""
        return self._cached(batch) if precision == "float32" else super().__call__(batch, precision)


def _read(path: Path) -> FloatArray | None:
    """The memory-mapped rows; None if the file is absent or damaged."""
    try:
        rows: Any = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return rows if rows.dtype == np.float32 and rows.ndim == 2 else None


def _write(path: Path, rows: FloatArray) -> None:
    try:
        path.parent.mkdir(exist_ok=True)
        with whole_file(path) as file:
            np.save(file, np.ascontiguousarray(rows, dtype=np.float32), allow_pickle=False)
    except OSError as error:
        raise SaveError(f"{path}: cannot be written ({error}); free some space or evaluate without a cache") from error
