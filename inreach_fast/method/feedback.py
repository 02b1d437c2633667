"""What a person said about single images: false alarms that were accepted, and missed defects that were rejected.

Let n(q) be the value of a patch q by the nominal patches alone (its squared distance to the nearest one, or by
reachability), A the accepted and R_e the rejected patches of feedback e. The patch then counts

    n'(q) = min( n(q), min over a in A of |q - a|^2 )
    s(q)  = max( n'(q), max over e of L_e * clip(2 - 2 |q - R_e|^2 / n'(q), 0, 1) )

*Accepted* patches are nominal ones of floor 0: a person is their witness. n' is, to the bit, what one bank of both
gives.

*Rejected* patches act inside their own cell of the Voronoi diagram only: a patch that is nearer to a nominal patch than
to every rejected one keeps its score, to the bit. From there the level rises with the ratio of the squared distances,
continuously, and is L_e whole where the rejected patch is at most 1/sqrt(2) times as far as the nearest nominal one.
L_e = 1.01 * threshold / w_e, w_e being the maximum of the map whose scores are 1 at the patches of e and 0 elsewhere.
Maps are linear with non-negative weights. So the map of an image that shows the region again, in its place, reaches
L_e w_e, above the threshold, whatever surrounds it. Levels follow the threshold when it is set or chosen anew.

Of a rejected region those patches count whose n' is at least half of the region's greatest: a box around a defect
shows ordinary surface as well, which is not to become anomalous. A nominal patch that equals a rejected one (of an
image that was trained on, say) no longer counts. Of two contradicting feedbacks on equal patches the later one holds.

Every distance is `kernels.nearest`'s, the rest is a fixed order of float64 operations that are monotone in n(q), also
when rounded: bounds of n are bounds of s, and the bits are the same on every backend.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from .. import kernels
from ..array_types import Array, BoolArray, FloatArray, IndexArray, UInt8Array
from ..kernels.bank import Bank
from .scoring import MapFrame, image_score

ACCEPT, REJECT = "accept", "reject"
STANDS_OUT = 0.5
"""Share of a rejected region's greatest value from which on its patches count."""
_ABOVE = 1.01  # by how much the repeat of a rejected region exceeds the threshold


@dataclass(frozen=True, eq=False, kw_only=True)
class Feedback:
    """One accepted or rejected region of an image.

    Attributes:
        number: by which it is undone, from 1.
        kind: "accept" or "reject".
        image: name of the image, as far as it has one.
        size: (height, width) of the image in pixels.
        region: (x, y, width, height) of the box around the region, in pixels of the image; None: the whole image.
        patches: int64 (k,), ascending: the patches that count, ``row * w + col`` of the grid.
        rows: float32 (k, D), their descriptors.
        peak: the greatest value of the map whose scores are 1 at these patches and 0 elsewhere.
        pixels: uint8 (H, W, 3), the network's input, not rotated; None in a model that was saved with ``final=True``.
        mask: bool (H, W), the region in that frame, with ``pixels``.
    """

    number: int
    kind: str
    image: str
    size: tuple[int, int]
    region: tuple[int, int, int, int] | None
    patches: IndexArray
    rows: FloatArray
    peak: float
    pixels: UInt8Array | None = None
    mask: BoolArray | None = None

    def __repr__(self) -> str:
        where = "the whole image" if self.region is None else "x={}, y={}, {} x {} pixels".format(*self.region)
        return f"Feedback({self.number}: {self.kind} {self.image}, {where}, {len(self.patches)} patches)"


def chosen_patches(kind: str, inside: BoolArray, values: FloatArray) -> IndexArray:
    """The numbers of the patches of a region that count, int64 (k,).

    Args:
        inside: bool (n,), patches that the region touches. values: float32 (n,), their n' (as scores).
    """
    if kind == REJECT:
        inside = inside & (values >= np.float32(STANDS_OUT) * values[inside].max())
    return np.flatnonzero(inside)


def peak_of(patches: IndexArray, count: int, frame: MapFrame) -> float:
    """`Feedback.peak` of these of ``count`` patches."""
    indicator = np.zeros(count, np.float32)
    indicator[patches] = 1.0
    return image_score(frame.map(indicator))


@dataclass(frozen=True, eq=False)
class FeedbackBanks:
    """The patches of all feedback, made ready for search.

    Attributes:
        accepted: the accepted patches; None without any. accepted_by: int64, the feedback of each.
        rejected: number, level (a score) and patches of each rejection.
    """

    accepted: Bank | None
    accepted_by: IndexArray
    rejected: tuple[tuple[int, float, Bank], ...]

    @classmethod
    def of(cls, feedback: Sequence[Feedback], threshold: float) -> FeedbackBanks | None:
        """The banks of what is valid of the feedback, in its order; None if there is none."""
        if not feedback:
            return None
        kind = {row.tobytes(): entry.kind for entry in feedback for row in entry.rows}  # the later one holds
        parts: dict[int, FloatArray] = {}
        for entry in feedback:
            valid = [kind[row.tobytes()] == entry.kind for row in entry.rows]
            parts[entry.number] = entry.rows[np.array(valid, dtype=bool)]
        level = max(_ABOVE * threshold, float(np.finfo(np.float32).tiny))
        accepted = [entry.number for entry in feedback if entry.kind == ACCEPT and len(parts[entry.number])]
        rows = [parts[number] for number in accepted]
        return cls(
            Bank(np.concatenate(rows), name="accepted patches") if rows else None,
            np.repeat(np.array(accepted, np.int64), [len(part) for part in rows]),
            tuple(
                (entry.number, level / entry.peak, Bank(parts[entry.number], name="rejected patches"))
                for entry in feedback
                if entry.kind == REJECT and len(parts[entry.number])
            ),
        )

    def excluded(self, nominal: Bank, backend: str) -> IndexArray:
        """The nominal patches that equal a rejected one, int64, ascending."""
        found: list[IndexArray] = []
        floor = np.zeros(len(nominal), np.float32)
        for _, _, bank in self.rejected:
            while True:  # one patch is found at a time, of several equal ones
                near = kernels.nearest(bank.rows, nominal.with_floor(floor), backend=backend)
                equal = np.unique(near.index[near.sq_distance == 0])
                if not len(equal):
                    break
                floor[equal] = np.inf
                found.append(equal)
        return np.sort(np.concatenate([np.empty(0, np.int64), *found]))

    def of_image(self, rows: FloatArray, backend: str) -> ImageFeedback:
        """Distances of an image's patches, (n, D), to those of the feedback."""
        accepted, by = None, np.zeros(len(rows), np.int64)
        if self.accepted is not None:
            near = kernels.nearest(rows, self.accepted, backend=backend)
            accepted, by = near.sq_distance, self.accepted_by[near.index]
        rejected = [
            (number, level, kernels.nearest(rows, bank, backend=backend).sq_distance)
            for number, level, bank in self.rejected
        ]
        return ImageFeedback(accepted, by, tuple(rejected))


@dataclass(frozen=True, eq=False)
class ImageFeedback:
    """What the feedback makes of the values of an image's patches.

    Attributes:
        accepted: float32 (n,), squared distances to the nearest accepted patch, or None. accepted_by: its feedback.
        rejected: number, level and squared distances float32 (n,) of each rejection.
    """

    accepted: FloatArray | None
    accepted_by: IndexArray
    rejected: tuple[tuple[int, float, FloatArray], ...]

    def scores(
        self, values: FloatArray, of_squared: Callable[[FloatArray], FloatArray], at: Array | slice = slice(None)
    ) -> tuple[FloatArray, IndexArray]:
        """Scores of the patches ``at``, float32 (m,), and the feedback that each is due to, int64 (m,), 0 for none.

        Args:
            values: float32 (m,), what the nominal patches give: n(q), squared. of_squared: makes scores of such values.
        """
        by = np.zeros(len(values), np.int64)
        if self.accepted is not None:
            accepted = self.accepted[at]
            by = np.where(accepted < values, self.accepted_by[at], 0)
            values = np.minimum(values, accepted)
        scores, wide = np.array(of_squared(values), dtype=np.float32), values.astype(np.float64)
        for number, level, sq_distance in self.rejected:
            apart = sq_distance[at].astype(np.float64)
            with np.errstate(divide="ignore", invalid="ignore"):
                share = np.where(apart == 0, 1.0, np.clip(2.0 - 2.0 * apart / wide, 0.0, 1.0))
            raised = (level * share).astype(np.float32)
            by = np.where(raised > scores, number, by)
            scores = np.maximum(scores, raised)
        return scores, by
