"""Exit codes of `inreach`; scripts may rely on them. `DESCRIPTION` says what each means."""

from __future__ import annotations

from .. import errors

SUCCESS, INTERNAL, USAGE, DATA, MODEL, BACKEND, OUTPUT = range(7)
ANOMALY = 10
INTERRUPTED = 130  # 128 + SIGINT, as a POSIX shell reports it
BROKEN_PIPE = 141  # 128 + SIGPIPE

DESCRIPTION = """\
exit codes:
    0  success
    1  internal error (a bug; --debug shows the traceback)
    2  wrong option or parameter
    3  images or folders that cannot be used
    4  model file that cannot be used
    5  backend, backbone, weights or workers that cannot be used here
    6  output that cannot be written
   10  predict --fail-on-anomaly: at least one image is anomalous
  130  interrupted (Ctrl-C); no partial file is left. SIGTERM ends watch and serve with 0
  141  the reader of the output has closed it
"""

# The first match decides: a subclass stands before its base.
_CODES: tuple[tuple[type[BaseException] | tuple[type[BaseException], ...], int], ...] = (
    (errors.SaveError, OUTPUT),
    (errors.ParameterError, USAGE),
    (errors.DataError, DATA),
    (errors.SpoolError, OUTPUT),
    (
        (
            *(errors.GrowthError, errors.FeedbackError, errors.ModelFileError),
            *(errors.NotFittedError, errors.ExplanationError),
        ),
        MODEL,
    ),
    ((errors.BackboneError, errors.BackendError, errors.ExecutorError, errors.TrainingError), BACKEND),
    ((MemoryError, OSError), DATA),
)


def code_of(error: BaseException) -> int:
    """Exit code for an error; `INTERNAL` for an error that the package does not raise on purpose."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), INTERNAL)
