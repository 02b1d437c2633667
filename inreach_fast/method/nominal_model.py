"""The nominal model: the patches of the channels that pass the filters, each with its origin."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from .. import kernels
from ..array_types import Array, FloatArray, IndexArray
from ..errors import DataError, MixedSizesError, ModelCorruptError, ParameterError
from ..system.memory import check_unchanged, mapped_runs
from ..system.progress import Progress
from .compression import Compression, check_epsilon, check_size, cover, cover_of_size, nearest_kept, sum_above
from .reachability import check_witnesses, confirm


@dataclass(frozen=True, eq=False)
class NominalModel:
    """Nominal patches of a fit, image by image in the order of the fit (`arrangement`), then by patch. Immutable.

    Attributes:
        patches: float32 (n, D), the descriptors (with their two position channels, where those are in use).
        image_index: int64 (n,), training image of each patch.
        patch_index: int64 (n,), its patch number in that image, ``row * w + col`` of the grid.
        channel_seed_image, channel_seed_patch: int64 (n,), its channel; with ``confirmation`` its witness.
        confirmation: float32 (n,), the confirmation distance of each patch (`method.reachability`), squared; None for a
            model of channels. In a compressed model it is the least of those that the patch stands for, whereas the
            witness is the patch's own.
        index_arrays: the search index by name, from `kernels.Bank.index_arrays` (see `build_index`); None: it is built
            when it is first needed.
        following: float32 (n,), what ``confirmation`` would be without one of the images that it comes from; None for a
            model of channels, and once compressed.
        compression: `Compression`, what `compress` left out, or None. A compressed model cannot grow.

    Raises:
        MixedSizesError: arrays of different lengths. DataError: no patch.
    """

    patches: FloatArray
    image_index: IndexArray
    patch_index: IndexArray
    channel_seed_image: IndexArray
    channel_seed_patch: IndexArray
    index_arrays: Mapping[str, Array] | None = None
    compression: Compression | None = field(default=None, kw_only=True)
    confirmation: FloatArray | None = field(default=None, kw_only=True)
    following: FloatArray | None = field(default=None, kw_only=True)
    _lazy: dict[str, object] = field(default_factory=dict, init=False, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)

    def __post_init__(self) -> None:
        n = len(self.patches)
        if n == 0:
            raise DataError("patches: a nominal model needs at least one patch")
        columns = ["image_index", "patch_index", "channel_seed_image", "channel_seed_patch"]
        columns += [name for name in ("confirmation", "following") if getattr(self, name) is not None]
        for name in columns:
            if getattr(self, name).shape != (n,):
                raise MixedSizesError(f"{name}: expected {n} entries, one for each patch")
        for name in ("patches", *columns):
            view = getattr(self, name).view()
            view.flags.writeable = False
            object.__setattr__(self, name, view)

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
        """The patches prepared for search, grouped by image, ``confirmation`` their floor (built on first use)."""
        with self._lock:
            bank = self._lazy.get("bank")
            if not isinstance(bank, kernels.Bank):
                prepared: dict[str, Any] = {} if self.index_arrays is None else {"index_arrays": self.index_arrays}
                try:
                    bank = kernels.Bank(self.patches, self.image_index, floor=self.confirmation, **prepared)
                except ParameterError as error:
                    if not prepared:
                        raise
                    raise ModelCorruptError(f"the model's search index was altered ({error})") from error
                self._lazy["bank"] = bank
        return bank

    def build_index(self, folder: Path | None, memory_limit: int) -> None:
        """Builds the search index, to be saved with the model.

        Args:
            folder: where its arrays are written, to be memory-mapped; None keeps them in memory.
            memory_limit: bytes that building it in ``folder`` may take; not used without a folder.

        Raises:
            OSError: the folder cannot be written.
        """
        bank = self.bank
        arrays = bank.index_arrays() if folder is None else bank.index_arrays(folder=folder, memory_limit=memory_limit)
        object.__setattr__(self, "index_arrays", arrays)  # follows from the patches: the model does not change

    def confirmed(
        self, witnesses: int, backend: str, progress: Progress, passing: Sequence[Array] = ()
    ) -> NominalModel:
        """The same patches, in order of their images, with their confirmation distances and witnesses.

        Args:
            witnesses: k of `method.reachability`. progress: called as progress("confirm", images done, images).
            passing: arrays of the index on disk whose pages are released like those of patches on disk.

        Raises:
            TooFewImagesError: an image has fewer than k others.
        """
        starts = np.flatnonzero(np.diff(self.image_index, prepend=-1))
        images = self.image_index[starts]
        check_witnesses(len(images), witnesses)
        distance, following = np.empty(len(self), np.float32), np.empty(len(self), np.float32)
        witness = np.empty(len(self), np.int64)
        for done, (image, part) in enumerate(zip(images, np.split(np.arange(len(self)), starts[1:]), strict=True), 1):
            rows = self.patches[part[0] : part[-1] + 1]
            for run in mapped_runs(len(part), (self.patches, *passing)):
                found = confirm(rows[run], int(image), self.bank, witnesses, backend)
                distance[part[run]], witness[part[run]], following[part[run]] = found
            progress("confirm", done, len(images))
        return replace(
            self,
            confirmation=distance,
            following=following,
            channel_seed_image=self.image_index[witness],
            channel_seed_patch=self.patch_index[witness],
        )

    def without_testimony(self, image: int, rows: FloatArray, witnesses: int, backend: str) -> FloatArray | None:
        """``confirmation`` as if a training image had not been there, float32 (n,).

        With it the image is scored as a new one would be: neither its patches nor its testimony count. Where no other
        image could have taken its place, the distance stays.

        Args:
            image: its number. rows: (P, D), its descriptors. witnesses: k.
        """
        if self.confirmation is None or self.following is None:
            return self.confirmation
        if witnesses == 1:
            testifies = self.channel_seed_image == image
        else:  # one of the k nearest images
            found = kernels.nearest(self.bank.with_groups(None).with_floor(None), rows, backend=backend)
            testifies = found.sq_distance <= self.confirmation
        return np.where(testifies & np.isfinite(self.following), self.following, self.confirmation)

    def compress(
        self,
        epsilon: float | None = None,
        *,
        to: int | float | None = None,
        backend: str = "auto",
        progress: Progress | None = None,
    ) -> NominalModel:
        """A model of fewer patches, whose distances grow by at most epsilon and never shrink.

        For every descriptor q, d(q, all) <= d(q, kept) <= d(q, all) + epsilon. With ``confirmation`` a kept patch
        takes the least value of the patches that it stands for; the root of a score by reachability then changes by
        at most epsilon, up or down. (The module `compression` has the proofs, with all roundings, and what follows
        for maps and scores.)

        Args:
            epsilon: greatest growth of a distance, in L2 units (not squared), at least 0; 0 leaves out only exact
                duplicates.
            to: instead of epsilon, how many patches to keep at most: a number, or a float in (0, 1) for a share.
                The epsilon that this takes is found and stored in ``compression``. Duplicates are removed first.
            backend: kernel backend; the result does not depend on it.
            progress: called as progress("compress", done, total), for each pass.

        Returns:
            The model of the kept patches, in their order. If this model was compressed before, ``compression``
            has the sum of the epsilons.

        Raises:
            ParameterError: not exactly one of epsilon and to; or a negative value, not a number, or not a size.
        """
        if (epsilon is None) == (to is None):
            raise ParameterError("compress: give either epsilon or to, exactly one of them")
        if epsilon is not None:
            reached = check_epsilon(epsilon)
            kept = cover(self.patches, reached, backend=backend, progress=progress)
        else:
            size = check_size(to, len(self))
            kept, reached = cover_of_size(self.patches, size, backend=backend, progress=progress)
        before, confirmation = self.compression, None
        if self.confirmation is not None:
            every = np.arange(len(self), dtype=np.int64)
            place, _ = nearest_kept(self.patches, every, kept, backend, progress)
            confirmation = self.confirmation[kept]
            np.minimum.at(confirmation, place, self.confirmation)
        smaller = NominalModel(
            self.patches[kept],
            self.image_index[kept],
            self.patch_index[kept],
            self.channel_seed_image[kept],
            self.channel_seed_patch[kept],
            compression=Compression(
                epsilon=reached if before is None else sum_above(before.epsilon, reached),
                kept=len(kept),
                of=len(self) if before is None else before.of,
            ),
            confirmation=confirmation,
        )
        check_unchanged(self.patches)
        return smaller

    def displaced(self, rows: IndexArray, down: IndexArray, right: IndexArray, grid: tuple[int, int]) -> IndexArray:
        """The nominal patches that are displaced by ``down``, ``right`` patches from ``rows`` in their own images.

        All int64 (m,); -1 if there is none. ``grid``: (h, w) patches of an image.
        """
        h, w = grid
        at_row, at_column = np.divmod(self.patch_index[rows], w)
        at_row, at_column = at_row + down, at_column + right
        inside = (at_row >= 0) & (at_row < h) & (at_column >= 0) & (at_column < w)
        places, row = self._places(h * w)
        wanted = self.image_index[rows] * (h * w) + at_row * w + at_column
        found = np.minimum(np.searchsorted(places, wanted), len(places) - 1)
        return np.where(inside & (places[found] == wanted), row[found], -1).astype(np.int64)

    def _places(self, patches: int) -> tuple[IndexArray, IndexArray]:
        """image * patches + patch of each nominal patch, ascending, and the rows of these patches."""
        with self._lock:
            found = self._lazy.get("places")
            if not isinstance(found, tuple):
                places = self.image_index * patches + self.patch_index
                row = np.argsort(places, kind="stable")
                found = self._lazy["places"] = places[row], row
        return found

    def counts_by_image(self, n_images: int) -> IndexArray:
        """Nominal patches of each training image, int64 (n_images,)."""
        return np.bincount(self.image_index, minlength=n_images).astype(np.int64)
