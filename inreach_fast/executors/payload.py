"""Python objects as buffers and back: pickle, with every array beside it and not inside.

Pickle's protocol 5 hands out the memory of arrays as it is ("out of band"), so that a result of some megabytes is
copied once into a socket or an object store, and not once more into a pickle.
"""

from __future__ import annotations

import io
import pickle
import traceback
from collections.abc import Callable, Sequence
from typing import Any

from ..errors import ExecutorError, ParameterError

Buffer = Any
"""Anything with the buffer protocol: bytes, memoryview, uint8 array."""


class _Pickler(pickle.Pickler):
    """Refuses what only this process knows, before a worker stumbles over it."""

    def reducer_override(self, obj: Any) -> Any:
        named = obj if isinstance(obj, type) or callable(obj) else type(obj)
        if getattr(named, "__module__", None) == "__main__":
            name = getattr(named, "__qualname__", type(obj).__qualname__)
            raise pickle.PicklingError(
                f"{name} is defined in the program that is being run, which workers do not import; "
                "move it to a module of its own"
            )
        return NotImplemented


def pack(value: Any, what: str) -> list[Buffer]:
    """An object as buffers: the pickle first, then the memory of its arrays.

    Args:
        value: the object; it must not change while the buffers are in use.
        what: its name in the error's message.

    Raises:
        ParameterError: it cannot be pickled.
    """
    buffers: list[pickle.PickleBuffer] = []
    file = io.BytesIO()
    try:
        _Pickler(file, protocol=5, buffer_callback=buffers.append).dump(value)
    except Exception as error:  # pickling runs code of the object's own, which may raise anything
        raise ParameterError(
            f"{what}: a {type(value).__name__} that cannot be sent between processes ({error}); give what can be "
            "pickled, or executor='local'"
        ) from error
    return [file.getbuffer(), *(buffer.raw() for buffer in buffers)]


def unpack(buffers: Sequence[Buffer]) -> Any:
    """The inverse of `pack`; arrays lie in the buffers' memory."""
    return pickle.loads(buffers[0], buffers=buffers[1:])


def perform(function: Callable[[Any], Any], buffers: Sequence[Buffer]) -> tuple[bool, list[Buffer]]:
    """One task in a worker.

    Returns:
        Whether it succeeded, and its packed result or error.
    """
    try:
        value = function(unpack(buffers))
        return True, pack(value, "result")
    except BaseException as error:  # whatever it is, it is raised where the result is asked for
        return False, pack_error(error)


def pack_error(error: BaseException) -> list[Buffer]:
    """An error and its traceback's text; of an error that cannot be pickled, its words."""
    text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    try:
        packed = pack((error, text), "error")
        if type(unpack(packed)[0]) is type(error):
            return packed
    except Exception:  # its constructor wants other arguments than it keeps, or worse
        pass
    stand_in = ExecutorError(f"a worker raised {type(error).__name__}: {error}")
    return pack((stand_in, text), "error")


def unpack_error(buffers: Sequence[Buffer]) -> BaseException:
    """The inverse of `pack_error`: the error, caused by a `RemoteTraceback`."""
    try:
        error, text = unpack(buffers)
    except Exception as failure:
        return ExecutorError(f"a worker raised an error that cannot be read here ({failure})")
    assert isinstance(error, BaseException)
    error.__cause__ = RemoteTraceback(text)
    return error


class RemoteTraceback(Exception):
    """Where in the worker an error was raised: its traceback, as text."""

    def __str__(self) -> str:
        return f"\n\n{self.args[0]}" if self.args else ""
