"""A stream of images through three stages that overlap: reading, starting, collecting.

Reading (decoding, resizing, turning) happens in a thread of its own, a few images ahead. On a GPU the network and the
search of an image are started before the one before it is collected; on the CPU both stages are one. Whatever
overlaps, predictions come in the order of the images.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from ..array_types import UInt8Array
from ..errors import NonFiniteError
from ..method.descriptors import bad_features

Image = TypeVar("Image")
Read = TypeVar("Read")
Started = TypeVar("Started")
Done = TypeVar("Done")


@dataclass(frozen=True, eq=False)
class Ready:
    """An image that is read.

    Attributes:
        network_input: uint8 (H, W, 3). degrees: by which alignment turned it.
        size: (height, width) of the image as it was given.
    """

    network_input: UInt8Array
    degrees: int
    size: tuple[int, int]


@contextmanager
def named_features(name: str) -> Iterator[None]:
    """Says whose features are not finite."""
    try:
        yield
    except NonFiniteError as error:
        raise bad_features(name) from error


def in_stream(
    images: Iterable[Image],
    read: Callable[[Image], Read],
    start: Callable[[Read], Started],
    collect: Callable[[Started], Done],
    *,
    ahead: int,
    in_flight: int,
) -> Iterator[Done]:
    """``collect(start(read(image)))`` for each image, in order.

    Args:
        images: asked for the next image in the reading thread, at most ``ahead`` images before it is started.
        read: in the reading thread. start, collect: in the caller's.
        ahead: images that are read or being read, at least 1.
        in_flight: images that are started and not collected while the next one is started; 0 for none.

    An error of any stage is raised in its image's turn: the images before it have come, nothing comes after it.
    """
    source = iter(images)

    def next_read() -> Read | None:
        for image in source:
            return read(image)
        return None

    waiting: deque[Future[Read | None]] = deque()
    started: deque[Started] = deque()
    with ThreadPoolExecutor(1, thread_name_prefix="inreach-read") as reader:
        try:
            waiting.extend(reader.submit(next_read) for _ in range(ahead))
            while waiting:
                try:
                    ready = waiting.popleft().result()
                    item = None if ready is None else start(ready)
                except Exception:
                    while started:
                        yield collect(started.popleft())
                    raise
                if ready is None or item is None:
                    break
                waiting.append(reader.submit(next_read))
                started.append(item)
                if len(started) > in_flight:
                    yield collect(started.popleft())
            while started:
                yield collect(started.popleft())
        finally:
            # The caller may have closed the stream: no image is asked for any more.
            for future in waiting:
                future.cancel()
