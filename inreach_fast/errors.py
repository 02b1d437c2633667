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


class MemoryLimitError(ParameterError):
    """``memory_limit`` is too small for the fit; the message says how much it takes."""


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
    """No GPU can be used here: no driver, one that is too old, no GPU, or one that others hold."""


class GpuMemoryError(GpuError, MemoryError):
    """The GPU's memory does not suffice."""


class GpuLostError(GpuError):
    """The GPU has failed in a way that only a new process gets over; nothing that was on it can be read."""


class DeviceMismatchError(ParameterError):
    """Arrays that meet in one call are on different devices; the message names them."""


class ExecutorError(InReachError, RuntimeError):
    """Work could not be spread over workers (`inreach_fast.executors`)."""


class WorkerLostError(ExecutorError):
    """Workers were lost again and again; the message names the task that took them along, if one did."""


class ClusterError(ExecutorError):
    """A cluster cannot be joined, was lost whole, or has other versions on it; the message says which."""


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


class SpoolError(InReachError, RuntimeError):
    """The spool of a fit (what it keeps on disk to go on from) cannot be used; the message names its folder."""


class SpoolExistsError(SpoolError):
    """The spool holds an unfinished fit and nobody asked to resume it, or the folder holds something else."""


class SpoolMismatchError(SpoolError):
    """The spool is of another configuration: parameters, backbone, seeds or version; the message says which."""


class SpoolImagesChangedError(SpoolError, DataError):
    """An image is not what it was when the spool was begun, or images came or went; the message names it."""


class SpoolBusyError(SpoolError):
    """Another process is fitting with this spool."""


class SpoolCorruptError(SpoolError):
    """The spool's journal or data were altered since they were written."""


class SpoolWriteError(SaveError, SpoolError):
    """The spool cannot be written (full disk, no permission); what was done stays in it, to be resumed."""


class GrowthError(InReachError, RuntimeError):
    """A fitted model cannot take images in or give them up; it stays as it was."""


class FinalModelError(GrowthError):
    """The model was saved without what growing needs (``final=True``, or by an older version)."""


class SeedImageError(GrowthError):
    """A seed image cannot be forgotten without a refit."""


class RefitNeededError(GrowthError):
    """With the new set of images the position test or the alignment decides otherwise: all has to be fitted anew."""


class DescriptorsNeededError(GrowthError):
    """The descriptors of images that the threshold is chosen from are no longer at hand; give them."""


class NotFittedError(InReachError, RuntimeError, AttributeError):
    """`fit` (or `load`) has to come before this call, or before this attribute is there."""
