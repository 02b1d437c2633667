"""Python processes that this one starts, speaks to, and never leaves behind.

A child is a fresh interpreter (nothing is forked: threads and CUDA do not survive that) with this one's module path
and environment, and a socket. It ends when its socket does: should this process be killed, the system closes the
socket, and the child goes too. Nothing of the program that is run is imported again, so that no
``if __name__ == "__main__"`` is needed.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from ..errors import ExecutorError
from .wire import Closed, Message, receive, send

_GIVE_UP: Final = 60.0  # seconds in which a child that reads at all must take some bytes, or send the next
_BOOT: Final = (
    "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); "  # Ctrl-C is the parent's; it ends its children
    "import json, sys; settings = json.loads(sys.argv[1]); sys.path[:] = settings['path']; "
    "from importlib import import_module; import_module(settings['module']).main(settings)"
)


class Child:
    """One child process.

    Args:
        module: the module whose ``main(settings)`` it runs.
        settings: JSON-able; "module", "path" and "socket" (a descriptor) are added.
        inherit: descriptors that it shall have too.
        output: descriptor for what it prints; None: this process's stderr, so that stdout stays the caller's.
    """

    def __init__(
        self, module: str, settings: Mapping[str, Any], *, inherit: Sequence[int] = (), output: int | None = None
    ) -> None:
        if not sys.executable:
            raise ExecutorError("no Python interpreter is known to start workers with; give executor='local'")
        self.connection, theirs = socket.socketpair()
        path = [entry for entry in sys.path if isinstance(entry, str)]
        everything = {**settings, "module": module, "path": path, "socket": theirs.fileno()}
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _BOOT, json.dumps(everything)],
                stdin=subprocess.DEVNULL,
                stdout=_standard_error() if output is None else output,
                stderr=output,
                pass_fds=(theirs.fileno(), *inherit),
            )
        except OSError as error:
            self.connection.close()
            raise ExecutorError(f"a process cannot be started ({error}); use fewer workers") from error
        finally:
            theirs.close()
        self.connection.settimeout(_GIVE_UP)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def ended(self) -> bool:
        """Whether it is gone."""
        return self._process.poll() is not None

    def send(self, message: Message) -> None:
        """Sends it a message.

        Raises:
            Closed: it is gone.
        """
        send(self.connection, message)

    def receive(self) -> Message:
        """Its next message.

        Raises:
            Closed: it is gone.
        """
        return receive(self.connection)

    def how_it_ended(self) -> str:
        """Ends it if need be; in words, how it ended."""
        try:
            code = self._process.wait(1.0)  # its socket closes a moment before it is gone
        except subprocess.TimeoutExpired:
            self.kill()
            return f"process {self.pid} did not answer"
        if code >= 0:
            return f"process {self.pid} ended with exit status {code}"
        with suppress(ValueError):
            name = signal.Signals(-code).name
            memory = ", as the system does when memory runs out" if name == "SIGKILL" else ""
            return f"process {self.pid} was killed by {name}{memory}"
        return f"process {self.pid} was killed by signal {-code}"

    def kill(self) -> None:
        """Ends it now."""
        self.connection.close()
        with suppress(OSError):
            self._process.kill()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(5.0)

    def finish(self, deadline: float) -> None:
        """Lets it end by itself until a time of `time.monotonic`, then ends it."""
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(max(0.0, deadline - time.monotonic()))
        self.kill()


def _standard_error() -> int:
    with suppress(OSError):
        os.fstat(2)
        return 2
    return subprocess.DEVNULL


def listen(settings: Mapping[str, Any], take: Callable[[Message], None], closed: Callable[[], None]) -> socket.socket:
    """In the child: the socket to its parent, which a thread reads from now on.

    The thread always reads, whatever the main thread does: else parent and child could each wait for the other to
    take a large message.

    Args:
        settings: what `Child` was given.
        take: called with each message. closed: called when the parent is gone.
    """
    connection = socket.socket(fileno=settings["socket"])
    connection.set_inheritable(False)

    def read() -> None:
        try:
            while True:
                take(receive(connection))
        except Closed:
            closed()

    threading.Thread(target=read, name="inreach-parent", daemon=True).start()
    return connection
