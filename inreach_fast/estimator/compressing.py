"""A fitted model with fewer nominal patches."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import ParameterError
from ..fit.report import FitReport
from ..progress import Progress
from .state import State

if TYPE_CHECKING:
    from typing_extensions import Self


class Compressing(State):
    """The part of `InReaCh` that compresses a model."""

    def compress(
        self, epsilon: float | None = None, *, to: int | float | None = None, progress: Progress | None = None
    ) -> Self:
        """The same fit with fewer nominal patches, whose distances grow by at most epsilon and never shrink.

        `NominalModel.compress` has arguments, guarantee and proof. Image scores do not fall either, and grow from s to
        at most (sqrt(s) + epsilon)^2, of plain distances to s + epsilon. The threshold stays the fit's, so that
        every image that was anomalous still is; ``threshold_scores_`` and ``report_`` are the fit's too, the
        report with an entry "compression" (epsilon, kept, of). A compressed model cannot grow.

        Returns:
            A new fitted estimator; this one stays as it is.

        Raises:
            NotFittedError; ParameterError: as `NominalModel.compress`, or a ``score`` other than "nearest", of which
            the guarantee does not speak.
        """
        self._check_fitted()
        if self.parameters.score != "nearest":
            raise ParameterError(
                f'compress: the guarantee is about score="nearest", and this model has "{self.parameters.score}"'
            )
        nominal = self.nominal_.compress(epsilon, to=to, backend=self.parameters.kernel_backend, progress=progress)
        assert nominal.compression is not None
        other = type(self)()
        other.__dict__.update({k: v for k, v in self.__dict__.items() if k not in ("_lock", "_pace")})
        other.nominal_ = nominal
        other._scorer = other._growth = other._spool = None
        other.report_ = FitReport({**self.report_.counts, "compression": nominal.compression.as_dict()})
        other.report_.seconds.update(self.report_.seconds)
        return other
