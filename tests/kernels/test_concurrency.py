"""Many Python threads at once, and use after fork."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import reference
from kernel_cases import Engine, cpu_engines, gaussian, same_bits

import inreach_fast
from inreach_fast import kernels


def test_many_python_threads_share_a_bank(engine: Engine, threads: None) -> None:
    rng = np.random.default_rng(1)
    rows = gaussian(rng, engine.fewer(400), 40)
    bank = kernels.Bank(rows)
    jobs = [gaussian(rng, 50 + i, 40) for i in range(12)]
    expected = [reference.nearest(job, rows) for job in jobs]
    backward = [reference.mutual_nearest(job, rows)[2] for job in jobs]

    def work(i: int) -> None:
        same_bits(kernels.nearest(jobs[i], bank, backend=engine.backend).index, expected[i][0])
        same_bits(kernels.mutual_nearest(jobs[i], bank, backend=engine.backend).ba_index, backward[i])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, list(range(12)) * 3))


@pytest.mark.engines(routes="none")
def test_the_number_of_threads_may_change_in_the_middle(engine: Engine, threads: None) -> None:
    rng = np.random.default_rng(2)
    a, b = gaussian(rng, 120, 30), gaussian(rng, 150, 30)
    channel = np.sort(rng.integers(0, 40, 120))
    ab = reference.mutual_nearest(a, b)[0]
    keep = reference.filter_channels(a, channel, 1, 1.5).keep
    stop = threading.Event()

    def turn() -> None:
        while not stop.is_set():
            for count in (1, 2, 3, 5):
                inreach_fast.set_num_threads(count)

    turner = threading.Thread(target=turn)
    turner.start()
    try:
        for _ in range(20):
            same_bits(kernels.mutual_nearest(a, b, backend=engine.backend).ab_index, ab)
            result = kernels.filter_channels(a, channel, min_length=1, max_std=1.5, backend=engine.backend)
            same_bits(result.keep, keep)
    finally:
        stop.set()
        turner.join()


FORK = """
import os, sys
import numpy as np
import inreach_fast
from inreach_fast import kernels
inreach_fast.set_num_threads(2)
rng = np.random.default_rng(1)
a = rng.normal(size=(300, 64)).astype(np.float32)
b = rng.normal(size=(2000, 64)).astype(np.float32)
channel = rng.integers(0, 50, 300)
def answers(backend):
    both = kernels.mutual_nearest(a, b, backend=backend)
    kept = kernels.filter_channels(a, channel, min_length=3, max_std=1.5, backend=backend)
    one = kernels.nearest(a, b, k=2, backend=backend)
    parts = (one.index, one.sq_distance, both.ab_index, both.ba_index, kept.keep, kept.sigma)
    return b"".join(x.tobytes() for x in parts)
def survives_forks(backend):
    before = answers(backend)
    children = []
    for _ in range(2):
        child = os.fork()
        if child == 0:
            os._exit(0 if answers(backend) == before else 3)
        children.append(child)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert codes == [0, 0], (backend, codes)
    assert answers(backend) == before
if sys.argv[1] != "native":
    survives_forks(sys.argv[1])
else:
    from inreach_fast import _core
    from inreach_fast.kernels.cpu import native
    for pruned in (False, True):
        if pruned:
            native._MIN_CAPTURED, native._MAX_PARTICIPATION = -1.0, float("inf")
            native._MIN_BANK_ROWS, native._MIN_CALL_WORK = 1, 0.0
        for isa in _core.isa_levels():
            _core.set_isa(isa)
            survives_forks("native")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize("backend", sorted({engine.backend for engine in cpu_engines()}))
def test_use_after_fork(backend: str) -> None:
    """The compiled engine with each instruction set, by brute force and by bounds, one after another."""
    # In an interpreter of its own: this one has threads of other tests, and may be killed by a time limit.
    root = str(Path(inreach_fast.__file__).parents[1])
    path = os.pathsep.join(p for p in (root, os.environ.get("PYTHONPATH")) if p)
    done = subprocess.run(
        [sys.executable, "-c", FORK, backend],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "2"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
