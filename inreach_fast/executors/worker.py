"""A worker process: builds its spec, does tasks, ends with the process that started it."""

from __future__ import annotations

import os
import queue
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from .child import listen
from .payload import pack_error, perform
from .spec_file import load_spec
from .wire import Closed, Kind, Message, send


def processors() -> int:
    """Processors that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def torch_threads() -> int | None:
    """This process's number of torch threads; None where nothing has imported torch yet."""
    torch = sys.modules.get("torch")
    return None if torch is None else int(torch.get_num_threads())


def thread_settings(workers: int) -> dict[str, Any]:
    """The threads that ``workers`` workers on this machine shall have, as settings of `build`.

    torch's are this process's, since the bits of a convolution may depend on their number. The kernels' are a
    share of the processors, and no more than here: their results do not depend on it.
    """
    from ..threads import get_num_threads

    share = max(1, processors() // max(1, workers))
    return {"kernel_threads": min(get_num_threads(), share), "torch_threads": torch_threads()}


def build(spec: Callable[[], Any], settings: Mapping[str, Any]) -> Callable[[Any], Any]:
    """The function of a worker, built with its numbers of threads set.

    Args:
        spec: gives the spec; unpickling it imports what it needs.
        settings: of `thread_settings`.
    """
    from ..threads import set_num_threads

    set_num_threads(settings["kernel_threads"])
    unpickled = spec()
    _set_torch_threads(settings["torch_threads"])
    function: Callable[[Any], Any] = unpickled.build()
    _set_torch_threads(settings["torch_threads"])  # where building it was what imported torch
    return function


def _set_torch_threads(count: int | None) -> None:
    # A worker that does without torch need not wait seconds for its import.
    torch = sys.modules.get("torch")
    if torch is not None and count is not None:
        torch.set_num_threads(count)


def main(settings: Mapping[str, Any]) -> None:
    """The process's whole life."""
    inbox: queue.SimpleQueue[Message] = queue.SimpleQueue()
    connection = listen(settings, inbox.put, lambda: os._exit(0))
    number = settings["worker"]
    with suppress(Closed):  # the parent is gone: nobody is left to tell
        try:
            function = build(lambda: load_spec(settings["spec"]), settings)
        except BaseException as error:
            send(connection, Message(Kind.REFUSED, number, buffers=pack_error(error)))
            inbox.get()  # until the parent ends it
            return
        send(connection, Message(Kind.READY, number))
        while True:
            message = inbox.get()
            succeeded, buffers = perform(function, message.buffers)
            kind = Kind.RESULT if succeeded else Kind.ERROR
            send(connection, Message(kind, number, message.ticket, buffers))
            del message, buffers
