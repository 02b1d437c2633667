"""A scikit-learn outlier detector: graded evidence (`method.reachability`) on rows of any kind.

    >>> from inreach_fast.integrations.sklearn import InReaChDetector
    >>> make_pipeline(StandardScaler(), InReaChDetector()).fit(x).predict(new)

A sample is one row: a descriptor. Rows that belong together, as the patches of one image do, are given the same number
in ``groups``; a row is confirmed by rows of other groups only. Without groups every row is a group of its own.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import kernels
from ..array_types import Array, DoubleArray, IndexArray
from ..errors import IntegrationError, MixedSizesError, ParameterError
from ..method.evidence import evidence_threshold
from ..method.reachability import check_witnesses, confirm

try:
    from sklearn.base import BaseEstimator, OutlierMixin
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError as error:
    raise IntegrationError(
        "inreach_fast.integrations.sklearn: needs scikit-learn 1.6 or later; pip install 'inreach_fast[sklearn]'",
        name="sklearn",
    ) from error


class InReaChDetector(OutlierMixin, BaseEstimator):  # type: ignore[misc]
    """Outliers are rows that no row of another group confirms.

    With r(b) the squared distance from a training row b to the nearest row of the k-th nearest other group, a row q has
    the anomaly score min over b of max(|q - b|^2, r(b)). Exact, and the same bits on every backend.

    Args:
        witnesses: k, at least 1.
        contamination: "auto": the threshold is chosen from the training rows' scores against the other groups, without
            labels (`method.evidence`); or a share in (0, 0.5]: the threshold that so many training rows exceed.
        backend: kernel backend, "auto" for the fastest; results do not depend on it.

    Attributes:
        bank_: `kernels.Bank`, the training rows with their groups, and with r as their floor.
        offset_: float; ``decision_function`` is ``score_samples`` less this.
        n_features_in_, feature_names_in_: as in scikit-learn.

    Rows are float32: other numbers are rounded to it. Groups are given to `fit` (in a pipeline
    ``pipe.fit(x, inreachdetector__groups=g)``).
    """

    def __init__(self, witnesses: int = 1, contamination: str | float = "auto", backend: str = "auto") -> None:
        self.witnesses = witnesses
        self.contamination = contamination
        self.backend = backend

    def fit(self, X: Any, y: Any = None, groups: Any = None) -> InReaChDetector:
        """Learns from rows, among which outliers may be.

        Args:
            X: (n, D) numbers, finite; anything that scikit-learn takes, or an array with ``__dlpack__``.
            y: ignored.
            groups: (n,) numbers or names, the image of each row; None: each row is its own.

        Raises:
            ParameterError (a ValueError), TooFewImagesError: not more groups than ``witnesses``. ValueError as in
            scikit-learn.
        """
        rows = self._rows(X, reset=True)
        k, share = self.witnesses, self.contamination
        if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 1:
            raise ParameterError(f"witnesses: expected a whole number of at least 1, got {k!r}")
        if share != "auto" and not (isinstance(share, (int, float, np.number)) and 0 < share <= 0.5):
            raise ParameterError(f'contamination: expected "auto" or a share above 0, at most 0.5, got {share!r}')
        numbers = np.arange(len(rows), dtype=np.int64) if groups is None else _numbered(groups, len(rows))
        check_witnesses(len(np.unique(numbers)), int(k))
        bank = kernels.Bank(rows, numbers, name="X")
        self.bank_ = bank.with_floor(confirm(rows, numbers, bank, int(k), self.backend).distance)
        if share == "auto":
            found = kernels.nearest(rows, self.bank_, query_group=numbers, backend=self.backend)
            scores = found.sq_distance[np.isfinite(found.sq_distance)].astype(np.float64)
            self.offset_ = -evidence_threshold(scores) if len(scores) else 0.0
        else:
            self.offset_ = float(np.percentile(self._scores(rows), 100.0 * float(share)))
        return self

    def score_samples(self, X: Any) -> DoubleArray:
        """The negative anomaly score of each row, float64 (n,): the higher, the more normal."""
        check_is_fitted(self)
        return self._scores(self._rows(X, reset=False))

    def decision_function(self, X: Any) -> DoubleArray:
        """`score_samples` less ``offset_``, float64 (n,): negative for outliers."""
        return self.score_samples(X) - self.offset_

    def predict(self, X: Any) -> IndexArray:
        """1 for inliers and -1 for outliers, int64 (n,)."""
        return np.where(self.decision_function(X) >= 0, 1, -1).astype(np.int64)

    def _scores(self, rows: Array) -> DoubleArray:
        found = kernels.nearest(rows, self.bank_.with_groups(None), backend=self.backend)
        return -found.sq_distance.astype(np.float64)

    def _rows(self, X: Any, *, reset: bool) -> Array:
        if hasattr(X, "__dlpack__") and not hasattr(X, "__array__"):
            X = np.from_dlpack(X)
        checked: Array = validate_data(
            self, X, reset=reset, dtype=np.float32, order="C", ensure_min_samples=2 if reset else 1
        )
        return checked


def _numbered(groups: Any, count: int) -> IndexArray:
    """A number for each different group, int64 (n,)."""
    names = np.asarray(groups)
    if names.shape != (count,):
        raise MixedSizesError(f"groups: expected {count} entries, one for each row, got shape {names.shape}")
    return np.unique(names, return_inverse=True)[1].ravel().astype(np.int64)
