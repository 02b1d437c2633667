"""Settings of the whole suite: no time limits on examples, threads shared among test processes, skips by reason."""

from __future__ import annotations

import os
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

# Under pytest-xdist each process takes its share of the processors. Set before NumPy, torch and numba are imported.
if "PYTEST_XDIST_WORKER_COUNT" in os.environ:
    _SHARE = str(max(1, (os.cpu_count() or 1) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])))
    for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(_variable, _SHARE)

# Whatever is installed, networks run by torch where a test names no runtime.
os.environ["INREACH_BACKBONE_RUNTIME"] = "torch"

import pytest
from hypothesis import HealthCheck, settings

# A deadline, or a check of how long examples take to draw, would fail on a busy machine.
settings.register_profile(
    "inreach",
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("inreach")


def pytest_sessionstart(session: pytest.Session) -> None:
    """Builds what the CUDA tests run on in the background, while other tests begin."""
    in_worker = hasattr(session.config, "workerinput")
    if session.config.getoption("numprocesses", None) and not in_worker:
        threading.Thread(target=_build_host_executors, daemon=True).start()


def _build_host_executors() -> None:
    from cuda_host import build
    from gpu_fakes import build as fakes

    if build.compiler() is None:
        return
    faulty = build.HERE / "faulty"
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        pool.submit(build.library)
        pool.submit(fakes.fake_driver)
        pool.submit(fakes.extension)
        pool.submit(build.library, faulty)
        if build.finds_races():
            pool.submit(build.library, faulty, races=True)
            pool.submit(build.library, races=True)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One line for each reason of a skipped test."""
    skipped = terminalreporter.stats.get("skipped", [])
    reasons = Counter(report.longrepr[2].removeprefix("Skipped: ") for report in skipped)
    if reasons:
        terminalreporter.section("skipped tests by reason", sep="-")
    for reason, count in sorted(reasons.items()):
        terminalreporter.write_line(f"{count:5d}  {reason}")
