"""The members of channels while a fit collects them, image by image."""

from __future__ import annotations

import numpy as np

from ..array_types import IndexArray
from ..method.association import ImageMembers
from ..method.channels import Members
from .row_log import RowLog
from .workspace import Workspace


class MemberStore:
    """Takes what each image gives, in the order of the images.

    Args:
        workspace: budget and files; with a `Spool`, the images that it has recorded are there already.
        dim: values in a descriptor. patches: P. n_images: N.
        whole: the images whose other patches are kept as well (the threshold's sample), ascending.

    Attributes:
        rows: `RowLog`, the members' descriptors. rest: `RowLog`, the other patches of ``whole``, image by image.
    """

    def __init__(self, workspace: Workspace, dim: int, patches: int, n_images: int, whole: IndexArray) -> None:
        self._workspace, self._patches, self._n_images = workspace, patches, n_images
        self._found = found = workspace.recorded_images(dim, n_images)
        # In a spool every row is written at once.
        memory = (0, 0) if workspace.durable else (workspace.budget.members, workspace.budget.sample)
        most = n_images * patches, len(whole) * patches
        self.rows = RowLog(workspace, "members", dim, most_rows=most[0], memory=memory[0], rows=found.rows)
        self.rest = RowLog(workspace, "rest", dim, most_rows=most[1], memory=memory[1], rows=found.rest)

    @property
    def done(self) -> int:
        """Images taken in."""
        return len(self._found.counts)

    def append(self, found: ImageMembers) -> None:
        """Takes in the next image; SpoolWriteError if it cannot be written: the images before stay as they are."""
        number = self.done
        taken = self.rows.row_bytes * (len(self.rows) + len(found.patch))
        self._workspace.expected = taken * (self._n_images - number) // (number + 1)
        self.rows.append(found.rows)
        if found.rest is not None:
            self.rest.append(found.rest)
        self._workspace.record_image(number, found)
        self._found.counts.append(len(found.patch))
        self._found.patch.append(found.patch)
        self._found.joined.append(found.joined)

    def members(self, seed_images: IndexArray) -> Members:
        """All members, once all images are taken in; to be called once."""
        found = self._found
        patch = np.concatenate([np.empty(0, np.int32), *found.patch])
        found.patch.clear()  # they would be in memory twice until the fit ends
        joined = np.concatenate([np.empty(0, np.int64), *found.joined])
        found.joined.clear()
        return Members(seed_images, self._patches, np.array(found.counts, dtype=np.int64), patch, joined)

    def close(self) -> None:
        """Releases memory and files; a spool keeps what was taken in."""
        self.rows.close()
        self.rest.close()
