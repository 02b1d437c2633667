"""A stream of images through three stages that overlap: reading, starting, collecting.

Reading (decoding, resizing, turning) happens in a thread of its own, a few images ahead. On a card the network and the
search of an image are started before the one before it is collected; on the CPU both stages are one. Whatever
overlaps, predictions come in the order of the images.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Image = TypeVar("Image")
Read = TypeVar("Read")
Started = TypeVar("Started")
Done = TypeVar("Done")


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
