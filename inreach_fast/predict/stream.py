"""A stream of items through three overlapping stages: read, start, collect.

Reading (decoding, resizing, rotating) runs in a thread, a few images ahead. On a GPU, the network and the search of
an image are started before the previous image is collected. Results come in the order of the items.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Read = TypeVar("Read")
Started = TypeVar("Started")
Done = TypeVar("Done")


def in_stream(
    items: Iterable[Item],
    read: Callable[[Item], Read],
    start: Callable[[Read], Started],
    collect: Callable[[Started], Done],
    *,
    ahead: int,
    in_flight: int,
) -> Iterator[Done]:
    """``collect(start(read(item)))`` for each item, in order.

    Items are iterated and read in a thread, at most ``ahead`` (at least 1) before they are started. ``start`` and
    ``collect`` run in the caller's; ``in_flight`` items may be started and not yet collected when the next one is.
    An error of any stage is raised in its item's turn, after the results of all items before it, and ends the stream.
    """
    source = iter(items)

    def next_read() -> Read | None:
        return next((read(item) for item in source), None)

    waiting: deque[Future[Read | None]] = deque()
    started: deque[Started] = deque()
    with ThreadPoolExecutor(1, thread_name_prefix="inreach-read") as reader:
        try:
            waiting.extend(reader.submit(next_read) for _ in range(ahead))
            while True:
                try:
                    item = waiting.popleft().result()
                    if item is None:
                        break
                    started.append(start(item))
                except Exception:
                    while started:
                        yield collect(started.popleft())
                    raise
                waiting.append(reader.submit(next_read))
                if len(started) > in_flight:
                    yield collect(started.popleft())
            while started:
                yield collect(started.popleft())
        finally:
            # If the caller closes the stream, no further item is read.
            for future in waiting:
                future.cancel()
