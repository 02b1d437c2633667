"""The nominal model: patches that the channels vouch for, each with its provenance."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from . import kernels
from .errors import DataError, MixedSizesError

FloatArray = npt.NDArray[np.float32]
IndexArray = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class NominalModel:
    """Nominal patches of a fit, in (image, patch) order (ALGORITHM section 5). Immutable.

    Attributes:
        patches: float32 (n, D), the descriptors (with their two position channels, where those are in use).
        image_index: int64 (n,), training image of each patch.
        patch_index: int64 (n,), its patch number in that image, ``row * w + col`` of the grid.
        channel_seed_image, channel_seed_patch: int64 (n,), the channel that vouches for it.
        index_arrays: the prepared search index by name, as `kernels.Bank.index_arrays` gives it (see `build_index`);
            None where it is built when it is first needed.

    Raises:
        MixedSizesError: arrays of different lengths. DataError: no patch.
    """

    patches: FloatArray
    image_index: IndexArray
    patch_index: IndexArray
    channel_seed_image: IndexArray
    channel_seed_patch: IndexArray
    index_arrays: Mapping[str, npt.NDArray[Any]] | None = None
    _lazy: dict[str, object] = field(default_factory=dict, init=False, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)

    def __post_init__(self) -> None:
        n = len(self.patches)
        if n == 0:
            raise DataError("patches: a nominal model needs at least one patch")
        for name in ("image_index", "patch_index", "channel_seed_image", "channel_seed_patch"):
            if getattr(self, name).shape != (n,):
                raise MixedSizesError(f"{name}: expected {n} entries, one for each patch")
        for name in ("patches", "image_index", "patch_index", "channel_seed_image", "channel_seed_patch"):
            view = getattr(self, name).view()
            view.flags.writeable = False
            object.__setattr__(self, name, view)  # frozen for others; this is its own constructor

    def __len__(self) -> int:
        return len(self.patches)

    def __repr__(self) -> str:
        return f"NominalModel({len(self)} patches of {self.patches.shape[1]} from {self.n_images} images)"

    def __getstate__(self) -> dict[str, object]:
        return {k: v for k, v in self.__dict__.items() if k not in ("_lazy", "_lock")}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state, _lazy={}, _lock=threading.Lock())

    @property
    def n_images(self) -> int:
        """Training images that hold at least one nominal patch."""
        return len(np.unique(self.image_index))

    @property
    def bank(self) -> kernels.Bank:
        """The patches prepared for search, grouped by image (made on first use, then kept)."""
        with self._lock:
            bank = self._lazy.get("bank")
            if not isinstance(bank, kernels.Bank):
                prepared: dict[str, Any] = {} if self.index_arrays is None else {"index_arrays": self.index_arrays}
                bank = self._lazy["bank"] = kernels.Bank(self.patches, self.image_index, **prepared)
        return bank

    def build_index(self, folder: Path | None, memory_limit: int) -> None:
        """Builds the search index, so that it can be saved with the model, which then need not build it again.

        Args:
            folder: where its arrays are written, to be memory-mapped; None keeps them in memory.
            memory_limit: bytes that building it in ``folder`` may take.

        Raises:
            OSError: the folder cannot be written.
        """
        build = getattr(self.bank, "index_arrays", None)
        if build is not None:
            arrays = build() if folder is None else build(folder=folder, memory_limit=memory_limit)
            object.__setattr__(self, "index_arrays", arrays)  # what the patches imply; nothing of the model changes

    def counts_by_image(self, n_images: int) -> IndexArray:
        """Nominal patches of each training image, int64 (n_images,)."""
        return np.bincount(self.image_index, minlength=n_images).astype(np.int64)
