"""Processes that get SIGINT at random moments leave nothing half-written behind; the bench measures the time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# In an interpreter of its own, which has not used torch: its children are forked.
_RUN = """
import json, sys
from pathlib import Path
from bench.interrupt import interrupt
from inreach_fast import InReaCh
from small_fits import estimator, pictures, tiny_backbone

load = lambda path: InReaCh.load(path, backbone=tiny_backbone())
print(json.dumps(interrupt(Path(sys.argv[1]), 8, estimator, load, pictures(8), threads=1)))
"""

_AT_THE_END = """
import threading, time
from bench.interrupt import INTERRUPTED, _run

code, _ = _run(lambda: threading.Thread(target=time.sleep, args=(2,)).start(), 1, moment=0.5)
assert code == INTERRUPTED, code
"""


def _python(code: str, *args: str) -> subprocess.CompletedProcess[str]:
    import inreach_fast

    folders = ROOT, ROOT / "tests", Path(inreach_fast.__file__).parents[1], os.environ.get("PYTHONPATH")
    return subprocess.run(
        [sys.executable, "-c", code, *args],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(str(folder) for folder in folders if folder)},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_an_interrupted_process_leaves_nothing_half_written(tmp_path: Path) -> None:
    done = _python(_RUN, str(tmp_path))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["wrong"] == []
    assert found["milliseconds"], found  # some signals came in time
    assert sum(kind["signals"] for kind in found["milliseconds"].values()) + found["after_end"] == 8


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_signal_while_the_process_waits_for_its_threads_counts_as_an_interruption() -> None:
    done = _python(_AT_THE_END)
    assert done.returncode == 0, done.stderr
