"""Every error that inreach_fast raises on purpose. Messages name the argument or file, the cause and the remedy.

All derive from `InReachError`, so that a program can catch them at once, and from the built-in exception that Python
programs expect in their place (`ValueError` for bad arguments, `OSError` for a full disk).
"""

from __future__ import annotations


class InReachError(Exception):
    """Base class of all errors of inreach_fast."""


class ParameterError(InReachError, ValueError):
    """An argument's value, type, dtype or shape is not allowed; give one that the message allows."""


class MemoryLimitError(ParameterError):
    """``memory_limit`` is too small for the fit; give at least what the message says."""


class DataError(InReachError, ValueError):
    """Images, descriptors or other data cannot be used; repair or remove what the message names."""


class EmptyFolderError(DataError):
    """A folder or list contains no image; give one that does."""


class TooFewImagesError(DataError):
    """Fewer than two images can be used; InReaCh compares images with each other, so give more."""


class ImageError(DataError):
    """A file is unreadable, truncated or not an image; replace it, or skip such files with ``skip_bad``."""


class RegionError(DataError):
    """A region lies outside of its image, is empty, or is a mask of another size; give one in the image's frame."""


class MixedSizesError(DataError):
    """Arrays that must have the same size or dtype do not; bring them to one."""


class NonFiniteError(DataError):
    """An array contains NaN or infinity; leave out or repair the row or image that the message names."""


class ImageTooLargeError(ImageError):
    """An image has more pixels than ``max_pixels``; raise it, or give a smaller image."""


class DegenerateDataError(DataError):
    """All training images are identical; give different ones."""


class NoChannelsError(DataError):
    """No channel is left after the filters; relax the filter that the message names."""


class BackendError(InReachError, RuntimeError):
    """A kernel backend is unknown or cannot be used on this machine; choose one that the message lists."""


class GpuError(BackendError):
    """A GPU failed; the message contains the driver's description and a remedy."""


class GpuUnavailableError(GpuError):
    """No GPU can be used: no driver, a driver that is too old, no GPU, or a GPU reserved by others; use the CPU."""


class GpuMemoryError(GpuError, MemoryError):
    """The GPU's memory is full; free some, or lower the memory limit."""


class GpuLostError(GpuError):
    """The GPU failed and everything on it is lost; start a new process."""


class DeviceMismatchError(ParameterError):
    """The arrays of a call are on different devices; move them to one."""


class ExecutorError(InReachError, RuntimeError):
    """Work could not be distributed to workers (`inreach_fast.executors`)."""


class WorkerLostError(ExecutorError):
    """Workers ended unexpectedly, repeatedly; the message names the task during which they did, if it was one."""


class ClusterError(ExecutorError):
    """A cluster cannot be joined, was lost, or runs other versions; the message says which."""


class BackboneError(InReachError, RuntimeError):
    """A backbone cannot be built, loaded or run."""


class WeightsError(BackboneError):
    """A backbone's weights are missing, cannot be downloaded, or have another sha256; give the file."""


class RuntimeUnavailableError(BackboneError):
    """A runtime of the network is not installed, or cannot run this network here; install it, or choose another."""


class ForkError(BackboneError):
    """torch's threads were lost when this process was forked; start processes by "spawn", or give torch one thread."""


class ModelFileError(InReachError, RuntimeError):
    """A saved model cannot be used."""


class ModelCorruptError(ModelFileError):
    """A saved model was truncated or altered, or the file is not a model; copy it again, or fit again."""


class ModelVersionError(ModelFileError):
    """A saved model has a newer format than this version reads; update inreach_fast."""


class ModelChangedError(ModelFileError):
    """The file of a loaded model was overwritten while the model was in use; load it again."""


class BackboneMismatchError(ModelFileError):
    """A model was fitted with another backbone or other weights; give those of the fit."""


class TrainingError(InReachError, RuntimeError):
    """The training of a network failed: its loss is not finite; train with a lower learning rate."""


class ExplanationError(InReachError, RuntimeError):
    """A prediction cannot be explained: it was pickled, or made without a model; predict the image again."""


class SaveError(InReachError, OSError):
    """A file could not be written (full disk, no permission); no partial file was left."""

    def __str__(self) -> str:
        # The message alone: an OSError of two arguments would prepend "[Errno 28]".
        return str(self.args[-1]) if self.args else ""


class SpoolError(InReachError, RuntimeError):
    """The spool of a fit, the folder from which it can be resumed, cannot be used."""


class SpoolExistsError(SpoolError):
    """The spool contains an unfinished fit, or the folder other files; resume it, or choose another folder."""


class SpoolMismatchError(SpoolError):
    """The spool has other parameters, backbone, seeds or version; resume with those, or begin a new spool."""


class SpoolImagesChangedError(SpoolError, DataError):
    """An image was changed, added or removed since the spool was begun; restore it, or begin a new spool."""


class SpoolBusyError(SpoolError):
    """Another process is using the spool; wait for it, or choose another folder."""


class SpoolCorruptError(SpoolError):
    """The spool's journal or data were altered; remove it and begin again."""


class SpoolWriteError(SaveError, SpoolError):
    """The spool cannot be written (full disk, no permission); its data are kept, so that the fit can be resumed."""


class GrowthError(InReachError, RuntimeError):
    """Images cannot be added to or removed from a fitted model, which is unchanged."""


class FinalModelError(GrowthError):
    """The model was saved without what growing needs (``final=True``, or an older version); fit again."""


class SeedImageError(GrowthError):
    """A seed image cannot be forgotten without a refit; give ``refit=True``."""


class RefitNeededError(GrowthError):
    """With the new set of images the position test or the alignment changes its decision; fit all images anew."""


class DescriptorsNeededError(GrowthError):
    """Descriptors of images that the threshold is chosen from are no longer available; give them."""


class FeedbackError(InReachError, RuntimeError):
    """The model takes no feedback: its score is no distance, or it is one of descriptors; the message says which."""


class NotFittedError(InReachError, RuntimeError, AttributeError):
    """The model is not fitted; call `fit` or `load` first."""


class NotPicklableError(InReachError, TypeError):
    """A model cannot be pickled, because its network cannot be rebuilt; use ``save`` and `InReaCh.load`."""


class IntegrationError(InReachError, ImportError):
    """A library that an integration needs is missing, or of a version that it does not know; install another one."""


class PixelRangeWarning(UserWarning):
    """16-bit samples use a small part of their range; give ``bit_depth`` if the camera has fewer bits."""


class IntegrationWarning(UserWarning):
    """A library has another version than the one that its integration was tested with."""


class PassedOverWarning(UserWarning):
    """Entries of a folder are no images, or lie in sub-folders, and are passed over."""
