"""Files that are replaced as a whole: a reader never sees half of one."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from ..errors import SaveError


def write_whole(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Writes a temporary file beside ``path`` and renames it.

    If anything fails, an earlier file stays and the temporary one is removed.

    Raises:
        SaveError: it cannot be written; names ``path``.
    """
    temporary: str | None = None
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name[:100]}.", suffix=".part", dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            write(file)
        mask = os.umask(0o022)
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)  # mkstemp makes it readable by its owner only
        os.replace(temporary, path)
        temporary = None
    except OSError as error:
        reason = error.strerror or error
        raise SaveError(f"{path}: cannot be written ({reason}); free some space or choose another folder") from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
