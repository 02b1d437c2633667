"""A cache of image descriptors on disk, so that several evaluations of one class run the backbone once.

Each image's descriptors (P, dim) float32, without position channels, are in one ``.npy`` file. Its name is the sha256
of all they depend on: the network's input (which includes geometry and rotation), the backbone's fingerprint and
runtime, and the parameters. A 224 x 224 image takes 12.8 MB (3136 x 1024 x 4 bytes). The folder may be deleted at any
time.
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
        self.hits = self.misses = 0

    def described(
        self, batch: UInt8Array, describe: Callable[[UInt8Array], FloatArray], fingerprint: str
    ) -> FloatArray:
        """Descriptors (B, P, dim) of network inputs (B, h, w, 3); `describe` gives those that the cache does not hold.

        ``fingerprint`` names everything else that the result depends on (backbone, levels, dim, neighbourhood).
        """
        paths = [self._path(image, fingerprint) for image in batch]
        found = [_read(path) for path in paths]
        missing = [i for i, rows in enumerate(found) if rows is None]
        self.hits += len(found) - len(missing)
        self.misses += len(missing)
        if missing:
            for i, rows in zip(missing, describe(batch[missing]), strict=True):
                _write(paths[i], rows)
                found[i] = rows
        return np.stack([rows for rows in found if rows is not None])

    def _path(self, image: UInt8Array, fingerprint: str) -> Path:
        key = hashlib.sha256(f"inreach_fast descriptors 2|{fingerprint}|{image.dtype.str}|{image.shape}|".encode())
        key.update(np.ascontiguousarray(image).data)
        name = key.hexdigest()
        return self.folder / name[:2] / f"{name}.npy"


class CachedDescriber(Describer):
    """A describer with a cache of float32 descriptors; other precisions are not cached."""

    direct = False

    def __init__(self, describer: Describer, cache: FeatureCache) -> None:
        super().__init__(lambda: describer.backbone, lambda: describer.parameters)
        self._cache = cache

    def __call__(self, batch: UInt8Array, precision: str = "float32") -> FloatArray:
        if precision != "float32":
            return super().__call__(batch, precision)
        p = self.parameters
        fingerprint = f"{self.backbone.fingerprint}|dim={p.dim}|neighbourhood={p.neighbourhood}|runtime={self.runtime}"
        if p.grid_stride != 1:
            fingerprint += f"|grid_stride={p.grid_stride}"
        if p.tile is not None:
            fingerprint += f"|tile={p.tile},{p.tile_overlap},{p.image_size}"
        return self._cache.described(batch, super().__call__, fingerprint)


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
