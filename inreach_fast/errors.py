"""Every error that inreach_fast raises on purpose, each naming what is wrong and the remedy.

They share one root, `InReachError`, so that an embedding program can catch them all at once, and each also
derives from the built-in exception that Python programs expect in its place (`ValueError` for bad arguments,
`OSError` for a full disk), so that code which knows nothing of this package still does the right thing.
"""

from __future__ import annotations


class InReachError(Exception):
    """Root of every error raised by inreach_fast."""


class ParameterError(InReachError, ValueError):
    """An argument has a value, type, dtype or shape that is not allowed; the message names the argument."""


class DataError(InReachError, ValueError):
    """The images, descriptors or other data given cannot be used; the message names the file or argument."""


class EmptyFolderError(DataError):
    """A folder (or list) that should hold images holds none."""


class TooFewImagesError(DataError):
    """InReaCh associates patches *between* images, so that fewer than two images cannot be fitted."""


class ImageError(DataError):
    """One file is unreadable, truncated or not an image; the message names the file."""


class MixedSizesError(DataError):
    """Arrays that must agree in size do not."""


class NonFiniteError(DataError):
    """An array holds NaN or infinity; the message names the argument and the first such row."""


class DegenerateDataError(DataError):
    """The training images are all identical, so that nothing can be learnt from them."""


class NoChannelsError(DataError):
    """No channel survived the filters; the message says which filter removed how many."""


class BackendError(InReachError, RuntimeError):
    """A kernel backend is unknown or not usable on this machine; the message names those that are."""


class GpuError(BackendError):
    """A GPU failed; the message gives the driver's own word for it, and the remedy."""


class GpuUnavailableError(GpuError):
    """No GPU can be used here: no driver, one that is too old, no card, or one that others hold."""


class GpuMemoryError(GpuError, MemoryError):
    """The GPU's memory does not suffice."""


class GpuLostError(GpuError):
    """The GPU has failed in a way that only a new process gets over; nothing that was on it can be read."""


class DeviceMismatchError(ParameterError):
    """Arrays that meet in one call are on different devices; the message names them."""


class BackboneError(InReachError, RuntimeError):
    """A backbone cannot be built, loaded or run."""


class WeightsError(BackboneError):
    """A backbone's weights are missing, cannot be fetched, or fail their sha256."""


class ModelFileError(InReachError, RuntimeError):
    """A saved model cannot be used."""


class ModelCorruptError(ModelFileError):
    """A saved model was cut, altered, or is no model of this package at all."""


class ModelVersionError(ModelFileError):
    """A saved model was written by a newer version of the format than this package reads."""


class BackboneMismatchError(ModelFileError):
    """A saved model belongs to another backbone (or to other weights) than the one at hand."""


class SaveError(InReachError, OSError):
    """A file could not be written (full disk, no permission); nothing half-written was left."""

    def __str__(self) -> str:
        # The sentence alone: an OSError of two arguments would put "[Errno 28]" before it.
        return str(self.args[-1]) if self.args else ""


class NotFittedError(InReachError, RuntimeError, AttributeError):
    """`fit` (or `load`) has to come before this call, or before this attribute is there."""
