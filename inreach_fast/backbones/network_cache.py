"""Where exported networks are kept: one folder for each, named by the hash of all it depends on.

The cache is $INREACH_NETWORK_CACHE, or else ``inreach_fast/networks`` in the user's cache folder ($XDG_CACHE_HOME,
~/.cache); `set_network_cache` names another. An entry is written aside and then renamed, and its files' sha256 are
checked whenever it is read. A cache that is damaged, full or read-only costs time and never changes an answer: the
network is exported again, into a temporary folder if need be, and the log says why.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

from ..errors import SaveError

VARIABLE: Final = "INREACH_NETWORK_CACHE"
_MANIFEST: Final = "files.json"
_ASIDE: Final = ".aside-"
_OURS: Final = r"[0-9a-f]{64}|\.aside-[0-9a-f]+"
_named: Path | None = None
_log = logging.getLogger("inreach_fast")


def set_network_cache(folder: str | os.PathLike[str] | None) -> None:
    """Names the folder in which exported networks are kept; None: $INREACH_NETWORK_CACHE, or the user's cache folder.

    It is made when it is first needed. Results do not depend on it.
    """
    global _named
    _named = None if folder is None else Path(folder).expanduser()


def network_cache_folder() -> Path:
    """The folder in which exported networks are kept; it may not exist yet."""
    if _named is not None:
        return _named
    if os.environ.get(VARIABLE):
        return Path(os.environ[VARIABLE]).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "inreach_fast" / "networks"


def empty_network_cache() -> tuple[int, int]:
    """Removes every exported network; returns how many there were, and their bytes. Other files stay.

    Raises:
        SaveError: one cannot be removed.
    """
    count = size = 0
    for entry in _entries():
        size += _bytes(entry)
        try:
            shutil.rmtree(entry)
        except OSError as error:
            raise SaveError(f"{entry}: cannot be removed ({error.strerror or error}); check its permissions") from error
        count += not entry.name.startswith(_ASIDE)
    return count, size


def cached_networks() -> tuple[int, int]:
    """How many exported networks there are, and their bytes."""
    whole = [entry for entry in _entries() if not entry.name.startswith(_ASIDE)]
    return len(whole), sum(map(_bytes, whole))


def key_of(facts: Mapping[str, Any]) -> str:
    """The name of the entry that depends on ``facts``, which are JSON."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


@contextmanager
def cached(key: str, write: Callable[[Path], None]) -> Iterator[Path]:
    """The folder of an entry, for as long as the block lasts; ``write`` writes its files into a folder if it is new.

    What ``write`` raises is raised, unless the cache itself is to blame: then it writes to a temporary folder.

    Raises:
        SaveError: neither the cache nor the temporary folder can be written.
    """
    folder = network_cache_folder()
    entry = folder / key
    if entry.is_dir():
        if _is_whole(entry):
            yield entry
            return
        _log.warning("%s: a damaged network export; it is made again", entry)
    try:
        kept = _written(folder, entry, write)
    except OSError as error:
        _log.warning(
            "%s: the network's export cannot be kept here (%s), and takes its time in each process; free some space, "
            "or name a folder that can be written by %s or set_network_cache",
            folder, error.strerror or error, VARIABLE,
        )  # fmt: skip
        kept = None
    if kept is not None:
        yield kept
        return
    with ExitStack() as stack:
        try:
            made = tempfile.TemporaryDirectory(prefix="inreach-", ignore_cleanup_errors=True)
            temporary = Path(stack.enter_context(made))
            write(temporary)
        except OSError as error:
            raise SaveError(
                f"{tempfile.gettempdir()}: the network's export cannot be written ({error.strerror or error}); free "
                f"some space, or name a folder by {VARIABLE}"
            ) from error
        yield temporary


def _written(folder: Path, entry: Path, write: Callable[[Path], None]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    aside = folder / f"{_ASIDE}{secrets.token_hex(6)}"
    aside.mkdir()
    try:
        write(aside)
        sums = {path.name: _sha256(path) for path in sorted(aside.iterdir())}
        (aside / _MANIFEST).write_text(json.dumps(sums), encoding="utf-8")
        try:
            os.rename(aside, entry)
        except OSError:
            if not entry.is_dir():
                raise
            if not _is_whole(entry):  # damaged, and not another process's, made meanwhile
                shutil.rmtree(entry)
                os.rename(aside, entry)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return entry


def _is_whole(entry: Path) -> bool:
    try:
        sums = json.loads((entry / _MANIFEST).read_text(encoding="utf-8"))
        return bool(sums) and all(_sha256(entry / name) == expected for name, expected in sums.items())
    except (OSError, ValueError, AttributeError):
        return False


def _entries() -> list[Path]:
    try:
        found = sorted(network_cache_folder().iterdir())
    except OSError:
        return []
    return [path for path in found if path.is_dir() and re.fullmatch(_OURS, path.name)]


def _bytes(entry: Path) -> int:
    return sum(path.stat().st_size for path in entry.iterdir() if path.is_file())


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()
