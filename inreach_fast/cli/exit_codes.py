"""Exit codes of `inreach`; scripts may rely on them."""

from __future__ import annotations

from .. import errors

SUCCESS = 0
INTERNAL = 1
"""A fault of the program itself; `--debug` shows where."""
USAGE = 2
"""Wrong options, or parameters that the estimator does not accept."""
DATA = 3
"""Images or folders that cannot be used."""
MODEL = 4
"""A model file that cannot be used."""
BACKEND = 5
"""A backend, a backbone or its weights, or workers that cannot be used here."""
OUTPUT = 6
"""A file that could not be written; nothing half-written is left."""
ANOMALY = 10
"""`predict --fail-on-anomaly`: everything worked, and at least one image is anomalous."""
INTERRUPTED = 130
"""Ctrl-C (128 + SIGINT, as a shell reports it)."""
BROKEN_PIPE = 141
"""The reader of our output went away (128 + SIGPIPE, as a shell reports it)."""

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
  130  interrupted (Ctrl-C); nothing half-written is left
  141  the reader of the output went away
"""

# The first match decides, so that children stand before their parents.
_CODES: tuple[tuple[type[BaseException], int], ...] = (
    (errors.SaveError, OUTPUT),
    (errors.ParameterError, USAGE),
    (errors.DataError, DATA),
    (errors.SpoolError, OUTPUT),
    (errors.GrowthError, MODEL),
    (errors.ModelFileError, MODEL),
    (errors.NotFittedError, MODEL),
    (errors.BackboneError, BACKEND),
    (errors.BackendError, BACKEND),
    (errors.ExecutorError, BACKEND),
    (MemoryError, DATA),
    (OSError, DATA),
)


def code_of(error: BaseException) -> int:
    """Exit code for an error; `INTERNAL` for what is none of the package's own types."""
    for kind, code in _CODES:
        if isinstance(error, kind):
            return code
    return INTERNAL
