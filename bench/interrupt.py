"""SIGINT at random moments of `fit` and `predict`: how long a process stays, and what it leaves behind.

`python -m bench.interrupt --times 200` starts a child process for each signal (forked from one that has imported torch
and computed nothing), sends the signal at a moment drawn evenly from the run's length, and checks that no half-written
file is left, that a spool can be resumed, and that an older model is untouched. Prints milliseconds from the signal to
the end of the process, beside the load of the machine.
"""

from __future__ import annotations

import argparse
import atexit
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from inreach_fast import InReaCh

INTERRUPTED = 130


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=200, help="signals in all (default: 200)")
    parser.add_argument("--images", type=int, default=12, help="images of the fit (default: 12)")
    parser.add_argument("--image-size", type=int, default=224, help="pixels (default: 224)")
    parser.add_argument("--threads", type=int, default=2, help="torch's threads (default: 2)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    filters = {"min_channel_length": 1, "spread_filter": False}  # which leave something, whatever the size
    make = partial(InReaCh, backbone="efficientnet_lite2", image_size=args.image_size, **filters)
    pictures = patterns(args.images, args.image_size)
    folder = Path(tempfile.mkdtemp())  # a TemporaryDirectory would be removed at the end of each child
    try:
        found = interrupt(folder, args.times, make, InReaCh.load, pictures, threads=args.threads, seed=args.seed)
    finally:
        shutil.rmtree(folder)
    print(json.dumps(found, indent=1))
    sys.exit(1 if found["wrong"] else 0)


def interrupt(
    folder: Path,
    times: int,
    make: Callable[[], InReaCh],
    load: Callable[[Path], InReaCh],
    pictures: list[Any],
    *,
    threads: int = 2,
    seed: int = 0,
) -> dict[str, Any]:
    """Sends ``times`` signals, in turn to a fit with its save and to predictions with a save.

    Args:
        make, load: an estimator, not fitted, and a saved one; called in the child. pictures: what it fits and inspects.

    Returns:
        "milliseconds" of each kind: how many, median, 0.9 quantile, largest; "after_end": signals that came too late;
        "wrong": what was not as it should be; "load": the machine's, before and after.
    """
    generator, wrong = random.Random(seed), list[str]()
    load_before = os.getloadavg()[0]

    def fit(out: Path, spool: Path, resume: bool = False) -> None:
        model = make().fit(pictures, spool=spool, resume=resume, keep_spool=True)
        model.save(out)
        model.remove_spool()

    def predict(path: Path) -> None:
        model = load(path)
        for image in pictures:
            model.predict(image)
        model.save(path)

    complete = folder / "complete"
    seconds = {}
    for kind, act in (("fit", partial(fit, complete, folder / "spool")), ("predict", partial(predict, complete))):
        code, seconds[kind] = _run(act, threads)
        if code != 0:
            raise RuntimeError(f"{kind}: exit code {code} without a signal")
    right = complete.read_bytes()
    took: dict[str, list[float]] = {"fit": [], "predict": []}
    late = 0
    for number in range(times):
        kind = "fit" if number % 2 == 0 else "predict"
        place = folder / str(number)
        place.mkdir()
        model, spool = place / "model", place / "spool"
        model.write_bytes(right)
        act = partial(fit, model, spool) if kind == "fit" else partial(predict, model)
        code, heard = _run(act, threads, generator.uniform(0.0, seconds[kind]))
        if code == 0:
            late += 1
        elif code == INTERRUPTED:
            took[kind].append(1000.0 * heard)
        else:
            wrong.append(f"{kind} {number}: exit code {code}")
        left = {path.name for path in place.iterdir()} - {"model", "spool"}
        if left:
            wrong.append(f"{kind} {number}: {sorted(left)} are left")
        if model.read_bytes() != right:
            wrong.append(f"{kind} {number}: the older model was changed")
        if spool.is_dir() and generator.random() < 0.1:
            code, _ = _run(partial(fit, place / "resumed", spool, resume=True), threads)
            if code != 0 or (place / "resumed").read_bytes() != right:
                wrong.append(f"{kind} {number}: resumed, exit code {code}")
        shutil.rmtree(place)
    return {
        "milliseconds": {
            kind: {
                "signals": len(values),
                "median": round(float(np.median(values))),
                "p90": round(float(np.quantile(values, 0.9))),
                "largest": round(max(values)),
                "over_200": sum(value > 200 for value in values),
            }
            for kind, values in took.items()
            if values
        },
        "seconds_uninterrupted": {kind: round(value, 2) for kind, value in seconds.items()},
        "after_end": late,
        "wrong": wrong,
        "load": [load_before, os.getloadavg()[0]],
    }


def _run(act: Callable[[], None], threads: int, moment: float | None = None) -> tuple[int, float]:
    """Exit code of a child that acts, and its seconds; with a ``moment``: those from the signal to its end."""
    begin = time.monotonic()
    ready, told = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            try:
                signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
                torch.set_num_threads(threads)
                os.write(told, b"x")
                act()
                code = 0
            except KeyboardInterrupt:
                code = INTERRUPTED
            except BaseException as error:
                print(repr(error), file=sys.stderr)
            finally:
                threading._shutdown()  # type: ignore[attr-defined]
                atexit._run_exitfuncs()  # as at the end of any process: threads are joined
        except KeyboardInterrupt:  # the one signal came while the process ended
            code = INTERRUPTED
        finally:
            os._exit(code)
    os.close(told)
    os.read(ready, 1)
    os.close(ready)
    if moment is not None:
        time.sleep(moment)
        begin = time.monotonic()
        os.kill(child, signal.SIGINT)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return code, time.monotonic() - begin


def patterns(count: int, size: int) -> list[Any]:
    """Photograph-like images: one pattern under noise."""
    generator = np.random.default_rng(0)
    y, x = np.mgrid[:size, :size]
    pattern = 128 + 50 * np.sin(x / 9) + 40 * np.cos(y / 13)
    noise = generator.normal(0, 12, (count, size, size, 3))
    return list(np.clip(pattern[None, :, :, None] + noise, 0, 255).astype(np.uint8))


if __name__ == "__main__":
    main()
