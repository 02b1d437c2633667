"""Structured logs: each event of an inspection line is one line of JSON in the log `inreach_fast.line`."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import Any, Final, TextIO

LOG: Final = logging.getLogger("inreach_fast.line")
LOG.addHandler(logging.NullHandler())  # without handlers of the program, Python would print warnings


class Event:
    """What happened, with its time and values; as text it is one line of JSON.

    Attributes:
        name: of the event, such as "inspected". fields: JSON-able values by name.
    """

    def __init__(self, name: str, fields: Mapping[str, Any]) -> None:
        self.name, self.fields = name, dict(fields)
        self._time = now()

    def __str__(self) -> str:
        return json.dumps({"time": self._time, "event": self.name, **self.fields})


def log_event(name: str, *, level: int = logging.INFO, **fields: Any) -> None:
    """Logs an event. The message of the log record is an `Event`, for handlers that want its fields."""
    if LOG.isEnabledFor(level):
        LOG.log(level, Event(name, {"level": logging.getLevelName(level).lower(), **fields}))


def now() -> str:
    """The time in UTC, to the millisecond: ``2026-01-31T09:30:00.125Z``."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@contextmanager
def events_to(stream: TextIO | None = None, *, level: int = logging.INFO, without: str = "") -> Iterator[None]:
    """Writes events, and nothing else, to a stream while the block runs.

    Args:
        stream: None: standard error.
        level: the least that is written. without: name of an event that is left out.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.addFilter(lambda record: getattr(record.msg, "name", "") != without)
    before = LOG.level, LOG.propagate
    LOG.addHandler(handler)
    LOG.setLevel(level)
    LOG.propagate = False
    try:
        yield
    finally:
        LOG.removeHandler(handler)
        LOG.setLevel(before[0])
        LOG.propagate = before[1]
