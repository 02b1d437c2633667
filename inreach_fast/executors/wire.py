"""Messages between this process and one that it started, over a socket pair.

A message is a fixed head (what it is, worker, ticket, number of buffers), the buffers' sizes, the buffers.
"""

from __future__ import annotations

import enum
import socket
import struct
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .payload import Buffer

_HEAD = struct.Struct("<BqqI")
_SIZE = struct.Struct("<Q")


class Kind(enum.IntEnum):
    """What a message says. Down: to the worker; up: from it."""

    TASK = 1  # down: (worker, ticket), the packed task
    RESULT = 2  # up: (worker, ticket), the packed result
    ERROR = 3  # up: (worker, ticket), the packed error that the task raised
    READY = 4  # up: (worker), it was built
    REFUSED = 5  # up: (worker), the packed error that building it raised
    # Between a process that speaks to a cluster and this one:
    JOINED = 6  # up: packed facts about the cluster
    START = 7  # down: (worker)
    STOP = 8  # down: (worker)
    ALIVE = 9  # up: (worker), it was placed and answers
    LOST = 10  # up: (worker), the packed reason
    CLUSTER = 11  # up: the packed error that ends it all


class Message(NamedTuple):
    """One message; numbers that a kind does not need are 0."""

    kind: Kind
    worker: int = 0
    ticket: int = 0
    buffers: Sequence[Buffer] = ()


class Closed(Exception):
    """The other side is gone."""


def send(connection: socket.socket, message: Message) -> None:
    """Sends a message.

    Raises:
        Closed: the other side is gone, or took nothing for as long as the socket's timeout.
    """
    sizes = b"".join(_SIZE.pack(memoryview(buffer).nbytes) for buffer in message.buffers)
    try:
        connection.sendall(_HEAD.pack(message.kind, message.worker, message.ticket, len(message.buffers)) + sizes)
        for buffer in message.buffers:
            connection.sendall(buffer)
    except OSError as error:
        raise Closed(str(error)) from error


def receive(connection: socket.socket) -> Message:
    """The next message; its buffers are writable and its own.

    Raises:
        Closed: the other side is gone, maybe in the middle of a message.
    """
    kind, worker, ticket, count = _HEAD.unpack(_exactly(connection, _HEAD.size))
    sizes = [_SIZE.unpack(_exactly(connection, _SIZE.size))[0] for _ in range(count)]
    return Message(Kind(kind), worker, ticket, [_exactly(connection, size) for size in sizes])


def _exactly(connection: socket.socket, size: int) -> memoryview:
    view = np.empty(size, np.uint8).data  # a bytearray would be filled with zeros first
    done = 0
    try:
        while done < size:
            count = connection.recv_into(view[done:])
            if count == 0:
                raise Closed("end of stream")
            done += count
    except OSError as error:
        raise Closed(str(error)) from error
    return view
