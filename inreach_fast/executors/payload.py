"""What travels between processes: pickled tasks, results and errors, and the file that holds a spec."""

from __future__ import annotations

import errno
import io
import mmap
import os
import pickle
import reprlib
import tempfile
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Final, NamedTuple

from ..errors import ExecutorError, ParameterError, SaveError

_ALIGNMENT: Final = 64  # bytes: a cache line
_short = reprlib.Repr()
_short.maxother = _short.maxstring = 100


class PackedTask(NamedTuple):
    blob: bytes
    name: str  # for messages


class PackedError(Exception):
    """An error of a worker, pickled by `pack_error`: ``args[0]``. It is unpickled only where it is raised."""


class RemoteTraceback(Exception):
    """The text of a traceback in a worker; the cause of the error that is raised here."""

    def __str__(self) -> str:
        return f"\n\n{self.args[0]}" if self.args else ""


class _Pickler(pickle.Pickler):
    """Refuses objects that are defined in the running program: workers do not import it."""

    def reducer_override(self, obj: Any) -> Any:
        named = obj if callable(obj) else type(obj)
        if getattr(named, "__module__", None) == "__main__":
            name = getattr(named, "__qualname__", type(obj).__qualname__)
            raise pickle.PicklingError(
                f"{name} is defined in the program that is being run, which workers do not import; "
                "move it to a module of its own"
            )
        return NotImplemented


def pack(value: Any, what: str, arrays: Callable[[pickle.PickleBuffer], None] | None = None) -> bytes:
    """The pickled value; ParameterError, which calls it `what`, if it cannot be pickled.

    ``arrays`` is called with the memory of each array, which then stays out of the pickle.
    """
    file = io.BytesIO()
    try:
        _Pickler(file, protocol=5, buffer_callback=arrays).dump(value)
    except Exception as error:  # pickling runs the object's own code
        raise ParameterError(
            f"{what}: a {type(value).__name__} that cannot be sent between processes ({error}); give an object that "
            "can be pickled, or executor='local'"
        ) from error
    return file.getvalue()


def packed(tasks: Iterable[Any]) -> Iterator[PackedTask]:
    for number, task in enumerate(tasks):
        yield PackedTask(pack(task, f"task {number}"), str(getattr(task, "name", "")) or _short.repr(task))


def unpacked(results: Iterable[bytes]) -> Iterator[Any]:
    """Results, unpickled; an error of a worker is raised as it was there."""
    try:
        for number, blob in enumerate(results):
            try:
                value = pickle.loads(blob)
            except Exception as error:  # unpickling runs the object's own code
                raise ParameterError(f"result of task {number}: cannot be unpickled here ({error})") from error
            del blob
            yield value
            del value  # the caller decides how long a result lives
    except PackedError as wrapped:
        failure = unpack_error(wrapped.args[0])
        raise failure from failure.__cause__


def perform(function: Callable[[Any], Any], blob: bytes) -> tuple[str, bytes]:
    """Runs one task in a worker; returns ("result", its pickled result) or ("error", its pickled error)."""
    try:
        return "result", pack(function(pickle.loads(blob)), "result")
    except BaseException as error:  # raised where the result is requested
        return "error", pack_error(error)


def pack_error(error: BaseException) -> bytes:
    """An error and the text of its traceback; an error that cannot be pickled becomes an `ExecutorError`."""
    text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    try:
        blob = pack((error, text), "error")
        if type(pickle.loads(blob)[0]) is type(error):
            return blob
    except Exception:  # for example its constructor takes other arguments than it keeps
        pass
    return pack((ExecutorError(f"a worker raised {type(error).__name__}: {error}"), text), "error")


def unpack_error(blob: bytes) -> BaseException:
    """The inverse of `pack_error`; the cause of the error is a `RemoteTraceback`."""
    try:
        error, text = pickle.loads(blob)
    except Exception as failure:
        return ExecutorError(f"a worker raised an error that cannot be unpickled here ({failure})")
    assert isinstance(error, BaseException)
    error.__cause__ = RemoteTraceback(text)
    return error


@contextmanager
def spec_file(spec: Any) -> Iterator[str]:
    """The path of a temporary file with a spec. All workers of this machine map it, so its arrays are in memory once.

    Raises:
        ParameterError: the spec cannot be pickled. SaveError: no space for it.
    """
    arrays: list[pickle.PickleBuffer] = []
    pickled = pack(spec, "spec", arrays.append)
    parts = [memoryview(pickled), *(array.raw() for array in arrays)]
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="inreach-", ignore_cleanup_errors=True))
            path = os.path.join(folder, "spec")
            with open(path, "wb") as file:
                pickle.dump([len(part) for part in parts], file)
                for part in parts:
                    file.write(b"\0" * (-file.tell() % _ALIGNMENT))
                    file.write(part)
        except OSError as error:
            raise SaveError(
                error.errno or errno.EIO,
                f"{tempfile.gettempdir()}: cannot write the data that workers share ({error.strerror or error}); "
                "free some space, or set TMPDIR to a folder that has enough",
            ) from error
        yield path


def spec_parts(path: str) -> list[memoryview]:
    """The pickle in a spec file and its arrays, mapped read-only."""
    with open(path, "rb") as file:
        sizes, at = pickle.load(file), file.tell()
        view = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    parts = []
    for size in sizes:
        at += -at % _ALIGNMENT
        parts.append(view[at : at + size])
        at += size
    return parts


def load_spec(parts: Sequence[Any]) -> Any:  # its arrays are views of the parts
    return pickle.loads(parts[0], buffers=parts[1:])
