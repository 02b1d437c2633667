"""What a fitted model keeps besides its nominal patches, so that images can be added and removed.

There are two kinds. A model of images has all network inputs (uint8, a few per cent of its size): from them the
position test is repeated, and the images that the threshold is chosen from are described again. A model of descriptors
has no inputs; it keeps the descriptors of those images, and of a few more that replace forgotten ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from ..array_types import Array, BoolArray, FloatArray, IndexArray, UInt8Array
from ..method.arrangement import Arrangement
from ..method.channels import Members
from ..storage.rows import GatheredRows

RESERVE: Final = 8
"""Images beyond the threshold's sample of which a model of descriptors keeps the descriptors."""


@dataclass(frozen=True, eq=False, kw_only=True)
class GrowthState:
    """What adding and removing images needs besides the model itself.

    Attributes:
        members: all members before the filters. Images are numbered by their places (`method.arrangement`) here, in
            ``angles`` and in ``kept_images``; there are M.
        nominal: bool (n,), those that are `NominalModel.patches`, in the same order.
        others: float32 (n - nominal, D), the rows of the other members.
        digests: uint8 (N, 32), sha256 of each image's input (or of its descriptors).
        inputs: uint8 (N, H, W, 3), not rotated; None for a model of descriptors.
        angles: int64 (M,), what the rotation search found; None where it was not needed.
        kept_images: int64 (K,), ascending: the images of which a model of descriptors keeps all patches.
        kept_rest: float32 (r, D), their patches that are no members, image by image.
    """

    members: Members
    nominal: BoolArray
    others: FloatArray
    digests: UInt8Array
    inputs: UInt8Array | None
    angles: IndexArray | None
    kept_images: IndexArray
    kept_rest: FloatArray

    def rows(self, patches: FloatArray) -> GatheredRows:
        """The members' rows; ``patches`` are the model's nominal ones."""
        return GatheredRows.split(self.nominal, patches, self.others)

    def rest_of(self, image: int) -> FloatArray:
        """The patches of one of ``kept_images`` that are no members."""
        start, stop = self.members.rest_span(self.kept_images, image)
        return np.array(self.kept_rest[start:stop])

    def to_arrays(self) -> dict[str, Array]:
        """For a model file, which has the seed images in any case."""
        members = self.members
        arrays: dict[str, Array | None] = {
            "counts": members.counts,
            "patch": members.patch.astype(np.int32, copy=False),
            "joined": members.joined,
            "nominal": self.nominal.view(np.uint8),
            "others": self.others,
            "digests": self.digests,
            "kept_images": self.kept_images if self.inputs is None else None,
            "kept_rest": self.kept_rest if self.inputs is None else None,
            "inputs": self.inputs,
            "angles": self.angles,
        }
        return {name: array for name, array in arrays.items() if array is not None}

    @classmethod
    def from_arrays(
        cls, arrays: Mapping[str, Array], arrangement: Arrangement, seed_images: IndexArray, patches: int, nominal: int
    ) -> GrowthState:
        """Inverse of `to_arrays`, without reading what is memory-mapped.

        Args:
            arrays: as above. arrangement: of the images. seed_images: int64 (S,), places. patches: P.
            nominal: how many patches the model has.

        Raises:
            KeyError, ValueError: a part is missing, or parts do not fit.
        """
        inputs, others = arrays.get("inputs"), arrays["others"]
        if inputs is not None:
            arrays = {**arrays, "kept_images": np.empty(0, np.int64), "kept_rest": others[:0]}
        state = cls(
            members=Members(seed_images, patches, arrays["counts"], arrays["patch"], arrays["joined"]),
            nominal=arrays["nominal"].view(np.bool_),
            others=others,
            digests=arrays["digests"],
            inputs=inputs,
            angles=arrays.get("angles"),
            kept_images=arrays["kept_images"],
            kept_rest=arrays["kept_rest"],
        )
        count, images, places = len(state.members), len(arrangement.place), len(arrangement)
        fits = (
            len(state.members.counts) == places
            and state.members.joined.shape == state.nominal.shape == (count,)
            and len(others) == count - nominal
            and state.digests.shape == (images, 32)
            and (inputs is None or len(inputs) == images)
            and (state.angles is None or state.angles.shape == (places,))
        )
        if not fits:
            raise ValueError("the arrays that growing needs do not fit together")
        return state

    def check(self) -> None:
        """Checks the numbers before they are used to find rows.

        Raises:
            ValueError: they cannot be those of a fit.
        """
        members, kept = self.members, self.kept_images
        ok = (
            int(members.counts.sum()) == len(members)
            and _within(members.patch, 0, members.patches)
            and _within(members.joined, -1, len(members.seed_images) * members.patches)
            and bool((members.counts >= 0).all())
            and bool((members.counts[members.seed_images] == members.patches).all())
            and int(np.count_nonzero(self.nominal)) + len(self.others) == len(members)
            and bool((np.diff(kept) > 0).all())
            and _within(kept, 0, len(members.counts))
            and int((members.patches - members.counts[kept]).sum()) == len(self.kept_rest)
        )
        if not ok:
            raise ValueError("the numbers that growing needs contradict each other")


def _within(numbers: npt.NDArray[np.integer], least: int, end: int) -> bool:
    return not len(numbers) or (int(numbers.min()) >= least and int(numbers.max()) < end)
