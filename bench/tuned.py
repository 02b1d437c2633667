"""A peer whose settings were tuned, and how many of its answers are right."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]
_BLOCK = 512


@dataclass(frozen=True)
class Tuned:
    """A search ready to be timed.

    Attributes:
        run: searches all queries, int64 (m,).
        setting: the chosen settings, in words.
        recall: share of the queries whose nearest row it finds.
        build_seconds: of building and tuning; of reading, if ``cached``.
        cached: whether the index was read from an earlier run's file.
        tried: result of each setting that was tried (seconds or recall).
    """

    run: Callable[[], Ids]
    setting: str
    recall: float
    build_seconds: float
    cached: bool = False
    tried: dict[str, Any] = field(default_factory=dict)

    def words(self) -> str:
        """For the table."""
        made = "read" if self.cached else "built"
        return f"{self.setting}, recall {self.recall:.4f}, {made} in {self.build_seconds:.0f} s"


def recall(queries: Rows, bank: Rows, found: Ids, truth: Ids) -> float:
    """Share of ``found`` (m,) that are as near as the nearest rows ``truth`` (m,); ties count as right."""
    right = 0
    for start in range(0, len(queries), _BLOCK):
        part = slice(start, start + _BLOCK)
        asked = queries[part].astype(np.float64)
        distance = [((bank[np.maximum(rows[part], 0)] - asked) ** 2).sum(axis=1) for rows in (found, truth)]
        right += int(np.count_nonzero((distance[0] <= distance[1]) & (found[part] >= 0)))
    return right / len(queries)
