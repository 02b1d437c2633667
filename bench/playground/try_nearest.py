"""One search, one instruction set, one kind of data: `python -m bench.playground.try_nearest --help`.

python -m bench.playground.try_nearest --rows 100000 --data low-rank --isa avx2
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from inreach_fast import kernels, set_num_threads


def main() -> None:
    """Parse the options, search, print the time of each round and the search's counts."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--queries", type=int, default=3136)
    parser.add_argument("--rows", type=int, default=3136)
    parser.add_argument("--dim", type=int, default=1024)
    parser.add_argument("--data", choices=("random", "low-rank"), default="random")
    parser.add_argument("--mutual", action="store_true", help="mutual_nearest instead of nearest")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--isa", help="native backend: one of what the machine can run")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    if options.threads:
        set_num_threads(options.threads)
    if options.isa:
        from inreach_fast import _core

        _core.set_isa(options.isa)

    random = np.random.default_rng(0)

    def rows(count: int) -> np.ndarray:
        x = random.standard_normal((count, options.dim), dtype=np.float32)
        if options.data == "low-rank":
            scale = np.float32(0.97) ** np.arange(options.dim, dtype=np.float32)
            x *= scale  # a spectrum that falls like that of trained features
        return x

    queries, bank = kernels.Bank(rows(options.queries)), kernels.Bank(rows(options.rows))
    search = kernels.mutual_nearest if options.mutual else kernels.nearest
    for number in range(options.rounds):
        start, busy = time.perf_counter(), time.thread_time()
        found = search(queries, bank, backend=options.backend)
        busy, seconds = time.thread_time() - busy, time.perf_counter() - start
        work = 2e-9 * options.queries * options.rows * options.dim
        alone = f", {work / busy:.0f} of CPU time" if options.threads == 1 else ""
        print(f"round {number}: {seconds * 1e3:8.1f} ms, as brute force {work / seconds:.0f} GFLOP/s{alone}")
    print(found.counts)


if __name__ == "__main__":
    main()
