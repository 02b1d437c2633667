"""Latency of `predict`, file in and verdict out: in a loop and with paced frames, on a quiet machine and a busy one.

A frame every 30 to 200 ms finds threads asleep and caches cold; a busy process of normal priority takes a processor
away. Contestants are models by each runtime of the network that is installed, and by numbers of threads. They take
turns in blocks of frames; a contestant's frames within a block follow each other at the given pace. Where anomalib is
installed, its PatchCore of the same images takes turns with ours, in cases of their own.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from PIL import Image

from . import latency_anomalib
from .records import Case, goal, timed_case
from .workload import Workload

PACES_MS = (0, 30, 100, 200)  # 0: the next frame at once
BUSY = (0, 1, 2)  # other processes that use a processor each
OURS = "torch"
EAGER = "torch-unfolded"
ONE, AUTO = ", 1 thread", ", threads auto"
_BLOCKS = 4
_PEER_PACES_MS = (0, 100)
_PEER_FRAMES = 4  # beside peers, one frame in so many: theirs take longer
# Goals: a paced frame over one in a loop, the whole over its network, the 0.99 quantile over the median.
_PACED, _WHOLE, _TAIL = 1.15, 1.15, {0: 1.5, 1: 2.5}

Predict = Callable[[str], object]


def run(work: Workload, *, quick: bool = False, images: int | None = None, frames: int | None = None) -> list[Case]:
    """Cases: the parts of a prediction, and whole predictions for each pace and number of busy processes.

    Args:
        work: images and network.
        quick: a smaller model and fewer frames.
        images: training images (default: 128, whose 100,352 patches are the model; quick: 12).
        frames: of each contestant, pace and number of processes (default: 200; quick: 12).
    """
    images, frames = images or (12 if quick else 128), frames or (12 if quick else 200)
    with tempfile.TemporaryDirectory() as folder:
        files = _files(work, Path(folder), 8)
        models = _models(work, Path(folder) / "model", images)
        patches = len(next(iter(models.values())).nominal_)
        data = f"{work.features}, {patches:,} nominal patches"
        cases = [_parts(models[OURS], files, frames, data)]
        loops: dict[int, Mapping[str, list[float]]] = {}
        peers = latency_anomalib.contestants(work, Path(folder), images)
        for busy in BUSY[:2] if quick else BUSY:
            for pace in PACES_MS[:2] if quick else PACES_MS:
                with _busy_processes(busy):
                    for model in models.values():
                        model.predict(files[0])
                    predict: dict[str, Predict] = {name: model.predict for name, model in models.items()}
                    seconds = _take_turns(predict, files, frames, pace / 1e3)
                    loops.setdefault(busy, seconds)
                    cases.append(_case(busy, pace, seconds, loops[busy], data))
                    if peers and pace in _PEER_PACES_MS:
                        few = {name: ours for name, ours in predict.items() if ONE not in name and name != EAGER}
                        turns = max(_BLOCKS, frames // _PEER_FRAMES)
                        seconds = _take_turns({**few, **peers}, files, turns, pace / 1e3)
                        name = f"beside anomalib: {_title(busy, pace)}"
                        cases.append(timed_case(name, seconds, data=data, ours=OURS))
        return cases


def _files(work: Workload, folder: Path, count: int) -> list[str]:
    paths = []
    for number, pixels in enumerate(work.test_images(count)):
        path = folder / f"{number}.png"
        Image.fromarray(pixels).save(path, compress_level=1)
        paths.append(str(path))
    return paths


def _models(work: Workload, path: Path, images: int) -> dict[str, Any]:
    """One fitted model, by each runtime and number of threads."""
    from inreach_fast import InReaCh
    from inreach_fast.backbones import RUNTIMES, is_installed

    fitted = InReaCh(backbone=work.backbone, image_size=work.image_size, backbone_runtime=OURS)
    fitted.fit(work.training_images(images)).save(path, final=True)
    models = {}
    for runtime in reversed(RUNTIMES):
        if not is_installed(runtime):
            continue
        for words, threads in (("", None), (ONE, 1), (AUTO, "auto")):
            if threads == "auto" and runtime == EAGER:
                continue
            model = InReaCh.load(path, backbone=work.backbone, backbone_runtime=runtime)
            models[runtime + words] = model.prepare(threads=threads)
    return models


def _parts(model: Any, files: list[str], frames: int, data: str) -> Case:
    """Reading, network and all the rest of a prediction, in a loop; frames take turns."""
    predictor = model._ready(images=True)
    backbone = model.backbone
    inputs = [predictor.read(path, path) for path in files]

    def rest(number: int) -> Callable[[], object]:
        rows = predictor.describe(inputs[number].pixels[None])[0]
        return lambda: model.score_descriptors(rows)

    rests = [rest(number) for number in range(len(files))]
    parts: dict[str, Callable[[int], object]] = {
        "whole": lambda i: model.predict(files[i]),
        "network": lambda i: backbone.extract(inputs[i].pixels[None]),
        "reading and resizing": lambda i: predictor.read(files[i], files[i]),
        "network and descriptors": lambda i: predictor.describe(inputs[i].pixels[None]),
        "search and map": lambda i: rests[i](),
    }
    seconds: dict[str, list[float]] = {name: [] for name in parts}
    for frame in range(frames + 2):
        for name, work in parts.items():
            begun = time.perf_counter()
            work(frame % len(files))
            if frame >= 2:
                seconds[name].append(time.perf_counter() - begun)
    whole = median(w / n for w, n in zip(seconds["whole"], seconds["network"], strict=True))
    case = timed_case("parts of predict, in a loop", seconds, data=data, ours="whole")
    case["goals"] = [goal(f"whole under {_WHOLE} networks", whole, most=_WHOLE, unit=" networks", who="whole")]
    return case


def _take_turns(
    contestants: Mapping[str, Predict], files: list[str], frames: int, pace: float
) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    each = max(1, frames // _BLOCKS)
    for _ in range(_BLOCKS):
        for name, predict in contestants.items():
            due = time.perf_counter()
            for frame in range(each):
                due = max(due + pace, time.perf_counter())
                time.sleep(max(0.0, due - time.perf_counter()))
                begun = time.perf_counter()
                predict(files[frame % len(files)])
                seconds[name].append(time.perf_counter() - begun)
    return seconds


def _title(busy: int, pace: int) -> str:
    where = ("on a quiet machine", "beside a busy process", f"beside {busy} busy processes")[min(busy, 2)]
    return f"predict {where}, " + (f"a frame every {pace} ms" if pace else "in a loop")


def _case(busy: int, pace: int, seconds: Mapping[str, list[float]], loop: Mapping[str, list[float]], data: str) -> Case:
    case = timed_case(_title(busy, pace), dict(seconds), data=data, ours=OURS)
    tails = {name: np.quantile(values, (0.99, 0.999)) for name, values in seconds.items()}
    ends = "; ".join(f"{name} {1e3 * p99:.0f}, {1e3 * p999:.0f}" for name, (p99, p999) in tails.items())
    case["checks"] = {"p99, p99.9 in ms": ends, "load after": f"{os.getloadavg()[0]:.2f}"}
    ours = median(seconds[OURS])
    goals = case["goals"]
    if pace:
        goals.append(goal(f"under {_PACED} loops", ours / median(loop[OURS]), most=_PACED, unit=" loops", who=OURS))
    if busy in _TAIL:
        tail = float(tails[OURS][0]) / ours
        goals.append(goal(f"p99 under {_TAIL[busy]} medians", tail, most=_TAIL[busy], unit=" medians", who=OURS))
    if busy == 1:
        one = ours / median(seconds[OURS + ONE])
        goals.append(goal("no slower than its own single thread", one, most=1.05, unit=" of it", who=OURS))
    return case


@contextmanager
def _busy_processes(count: int) -> Iterator[None]:
    running = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        time.sleep(0.2 if count else 0.0)
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()
