"""`inreach serve` in this process, and `curl` to it."""

from __future__ import annotations

import shutil
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def serving_model(wanted: bool, model: Path) -> Iterator[int | None]:
    """The service of a model at a free port, if it is ``wanted``; it is ready when the block begins."""
    if not wanted:
        yield None
        return
    pytest.importorskip("uvicorn", reason="the service needs uvicorn and FastAPI")
    from inreach_fast.cli.commands.serve import _overlay
    from inreach_fast.serving import Inspector, server
    from inreach_fast.serving.app import ServiceLimits
    from inreach_fast.serving.signals import Stop

    bound, stop = server.listen("127.0.0.1", 0), Stop()
    inspector, port = Inspector(model, warm=False), bound.getsockname()[1]
    options = {"stop": stop, "limits": ServiceLimits(), "draw": _overlay}
    thread = threading.Thread(target=server.run_service, args=(inspector, bound), kwargs=options)
    thread.start()
    try:
        while thread.is_alive() and not _is_up(port):
            time.sleep(0.01)
        yield port
    finally:
        stop.asked = True
        thread.join(60)
    assert not thread.is_alive()


def _is_up(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health") as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def curl(words: list[str], port: int | None) -> None:
    """Runs a `curl` of a page, and fails where the answer is an error."""
    assert port is not None, f"no `inreach serve` in the block of {words}"
    program = shutil.which("curl")
    if program is None:
        return
    target = None
    if ">" in words:
        target = Path(words[words.index(">") + 1])
        words = words[: words.index(">")]
    words = [word.replace("127.0.0.1:8000", f"127.0.0.1:{port}") for word in words]
    done = subprocess.run([program, "--silent", "--show-error", "--fail", *words[1:]], capture_output=True)
    assert done.returncode == 0, (words, done.stderr)
    assert done.stdout
    if target is not None:
        target.write_bytes(done.stdout)
