"""Runs the web service: a socket, uvicorn, and what ends it."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import uvicorn

from ..errors import ParameterError
from .app import ServiceLimits, make_app
from .events import log_event
from .inspector import Inspection, Inspector
from .signals import Stop

_CONNECTIONS: Final = 1024
_TICK: Final = 0.1  # seconds: how soon a request to stop is noticed
_LAST_SECONDS: Final = 30  # that requests in work have when the service ends


def listen(host: str, port: int) -> socket.socket:
    """A socket that is bound to an address; port 0 takes a free one. Raises ParameterError."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError, OverflowError) as error:
        raise ParameterError(f"--host: {host!r} is no address of this machine ({error}); give 127.0.0.1") from error
    try:
        if hasattr(socket, "SO_EXCLUSIVEADDRUSE"):  # Windows: nobody else may take the port
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        else:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        bound.close()
        reason = error.strerror or str(error)
        raise ParameterError(f"--port: {host}:{port} cannot be bound ({reason}); give another --port") from error
    return bound


def is_loopback(bound: socket.socket) -> bool:
    """Whether only this machine reaches a socket."""
    return ipaddress.ip_address(bound.getsockname()[0].partition("%")[0]).is_loopback


def url_of(bound: socket.socket) -> str:
    """Where a browser finds the service."""
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def run_service(
    inspector: Inspector,
    bound: socket.socket,
    *,
    stop: Stop,
    limits: ServiceLimits,
    draw: Callable[[Inspection], bytes] | None = None,
) -> None:
    """Serves until a signal, or until it is asked to stop, and then finishes the requests in work.

    Args:
        inspector: with ``warm=False``; closed at the end.
        bound: from `listen`; closed at the end.
        stop: of `stop_on_signals`, around this call; in another thread than the main one, it alone ends the service.
        limits, draw: as in `make_app`.

    Raises:
        The error, not an image's own, after which no image could be inspected.
    """
    fatal: list[Exception] = []

    def fail(error: Exception) -> None:
        fatal.append(error)
        server.should_exit = True

    app = make_app(inspector, limits=limits, draw=draw, failed=fail)
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            loop="asyncio",
            http="h11",
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=_CONNECTIONS,
            timeout_graceful_shutdown=_LAST_SECONDS,
        )
    )
    if not is_loopback(bound):
        words = "everybody who reaches this machine can send images; there is no password and no encryption"
        log_event("exposed", level=logging.WARNING, url=url_of(bound), error=f"{words}; put a proxy in front of it")
    log_event("listening", url=url_of(bound))
    if not stop.asked:
        with _remarks_as_events():
            asyncio.run(_serve(server, bound, stop))
    if fatal:
        raise fatal[0]


async def _serve(server: uvicorn.Server, bound: socket.socket, stop: Stop) -> None:
    async def end_when_asked() -> None:
        while not stop.asked:
            await asyncio.sleep(_TICK)
        server.should_exit = True

    waiting = asyncio.create_task(end_when_asked())
    await server.serve(sockets=[bound])  # has its own signal handlers, and at its end raises what they caught again
    waiting.cancel()


@contextmanager
def _remarks_as_events() -> Iterator[None]:
    """What uvicorn has to say, such as of requests that are not HTTP, as events."""
    log, handler = logging.getLogger("uvicorn"), logging.Handler(logging.WARNING)
    handler.emit = lambda record: log_event(  # type: ignore[method-assign]
        "server", level=record.levelno, message=record.getMessage()
    )
    before = log.propagate
    log.addHandler(handler)
    log.propagate = False
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.propagate = before
