"""`predict` of the default preset from the network's levels to the verdict, and its parts, at each instruction set.

Then searches of its patches without confirmation distances, a frame at once, by eights and one by one, against torch
and faiss.

The network is replaced by levels that it gave before the clock starts; an unseen image each round. The instruction sets
that the machine can run take turns, and with them the parts. Beside the wall clock stands the processor time of all
threads, which other load on the machine disturbs less.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from inreach_fast import InReaCh, kernels
from inreach_fast.method.scoring import anomaly_map

from . import exact, peers
from .records import Case, goal, timed_case, value_case
from .timing import OURS, race, spread
from .workload import Workload, resize

IMAGES, UNSEEN, ROUNDS = 111, 21, 63
WHOLE = "levels to verdict"
FRAME_MS = 10.0
GOALS_MS = {"avx512vnni": 10.0, "avx512": 10.0, "avx2": 30.0}


class Recorded:
    """A network that gives levels kept before, once it is told to.

    Attributes:
        levels: what `extract` returns; None: the network's own.
    """

    def __init__(self, network: Any) -> None:
        self._network = network
        self.levels: Any = None

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._network, name)
        return self._by_runtime if name == "with_runtime" else found

    def _by_runtime(self, *arguments: Any) -> Any:
        """`Backbone.with_runtime`, where the network has it: this one, by another runtime."""
        self._network = self._network.with_runtime(*arguments)
        return self

    def extract(self, *arguments: Any, **options: Any) -> Any:
        """The kept levels, or the network's."""
        return self._network.extract(*arguments, **options) if self.levels is None else self.levels


def run(work: Workload, *, quick: bool = False, images: int | None = None, rounds: int | None = None) -> list[Case]:
    """One case for each instruction set that this machine can run, scalar code left out."""
    from inreach_fast import _core

    images, rounds = images or (8 if quick else IMAGES), rounds or (3 if quick else ROUNDS)
    network = Recorded(work.backbone)
    model = InReaCh("default", backbone=network, image_size=work.image_size)
    model.fit(work.training_images(images))
    pictures = [resize(image, work.image_size) for image in work.test_images(3 if quick else UNSEEN)]
    levels = [work.backbone.extract(picture[None]) for picture in pictures]
    steps = _steps(model, network, levels, pictures)
    before = _core.isa()
    wanted = [isa for isa in _core.isa_levels() if isa in GOALS_MS and not (isa == "avx512" and before != isa)]
    try:
        seconds = _measure(steps, wanted or [before], len(levels), rounds)
    finally:
        _core.set_isa(before)
    bank = np.array(model.nominal_.patches)  # a copy that torch may hold
    words = f"{images} images, {len(bank)} x {bank.shape[1]}"
    cases = [_case(isa, found, words, work.features) for isa, found in seconds.items()]
    predictor = model._ready(images=True)
    frame = np.asarray(predictor.describe(pictures[0][None])[0])
    return cases + [frame_case(frame, size, bank, data=work.features, quick=quick) for size in (len(frame), 8, 1)]


def frame_case(frame: Any, size: int, bank: Any, *, data: str, quick: bool = False) -> Case:
    """Searches of a frame's patches, (m, D), ``size`` in a call: all of them, or 16 calls."""
    calls = [frame[i : i + size] for i in range(0, min(len(frame), 16 * size), size)]
    prepared, flat = kernels.Bank(bank), peers.faiss_index(bank)

    def torch_calls() -> None:
        for search in searches:
            search()

    searches = [peers.torch_nearest(call, bank) for call in calls]
    contestants: dict[str, Callable[[], object]] = {
        peers.FAISS: lambda: [flat.search(call, 1) for call in calls],
        OURS: lambda: [kernels.nearest(call, prepared) for call in calls],
        peers.TORCH: torch_calls,
    }
    seconds = race(contestants, rounds=3 if quick else 21, budget=30)
    found = kernels.nearest(frame, prepared)
    case = timed_case(
        f"nearest, {len(calls)} {'call' if len(calls) == 1 else 'calls'} of {size} x {len(bank)} x {bank.shape[1]}",
        seconds,
        data=data,
        goals={peers.FAISS: 1, peers.TORCH: 1},
        checks=exact.check(frame, bank, found.index, found.sq_distance, len(bank)),
    )
    if size == len(frame):
        took = 1e3 * case["seconds"][OURS]["median"]
        case["goals"].append(goal(f"{FRAME_MS:g} ms a frame", took, most=FRAME_MS, unit=" ms", who=OURS))
    return case


def _steps(model: Any, network: Recorded, levels: list[Any], pictures: list[Any]) -> dict[str, Callable[[int], object]]:
    """What is timed, of image i; the parts get what the one before them gave."""
    p, predictor = model.parameters, model._ready(images=True)
    grid, projection, bank = predictor.grid, predictor.space.projection, predictor.scorer.bank
    described = [kernels.describe(level, grid=grid, dim=p.dim)[0] for level in levels]
    rows = [kernels.linear_map(one, projection.mean, projection.matrix) for one in described]
    scores = [kernels.nearest(one, bank).sq_distance.reshape(grid) for one in rows]

    def whole(i: int) -> object:
        network.levels = levels[i]
        try:
            return model.predict(pictures[i])
        finally:
            network.levels = None

    return {
        WHOLE: whole,
        "of which describe": lambda i: kernels.describe(levels[i], grid=grid, dim=p.dim),
        "of which components": lambda i: kernels.linear_map(described[i], projection.mean, projection.matrix),
        "of which search": lambda i: kernels.nearest(rows[i], bank),
        "of which map": lambda i: anomaly_map(scores[i], p.image_size, p.smoothing_sigma),
    }


def _measure(
    steps: dict[str, Callable[[int], object]], isa_levels: list[str], images: int, rounds: int
) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """By instruction set and step: seconds by the clock and of processor time, each round."""
    from inreach_fast import _core

    seconds: dict[str, dict[str, list[tuple[float, float]]]] = {isa: {name: [] for name in steps} for isa in isa_levels}
    for isa in isa_levels:  # warm up
        _core.set_isa(isa)
        for step in steps.values():
            step(0)
    for i in range(rounds):
        for isa in isa_levels:
            _core.set_isa(isa)
            for name, step in steps.items():
                start = time.perf_counter(), time.process_time()
                step(i % images)
                took = time.perf_counter() - start[0], time.process_time() - start[1]
                seconds[isa][name].append(took)
    return seconds


def _case(isa: str, seconds: dict[str, list[tuple[float, float]]], what: str, data: str) -> Case:
    found = {name: spread([1e3 * clock for clock, _ in values]) for name, values in seconds.items()}
    processor = {name: spread([1e3 * busy for _, busy in values]) for name, values in seconds.items()}
    return value_case(
        f"predict without the backbone, default preset, {what}, {isa}",
        {name: one["median"] for name, one in found.items()},
        data=data,
        unit="ms",
        limits={WHOLE: GOALS_MS[isa]} if isa in GOALS_MS else None,
        checks={
            name: f"{one['min']:.2f} to {float(np.quantile(one['values'], 0.9)):.2f} ms in nine of ten rounds, "
            f"processor time {processor[name]['min']:.2f} ms or more"
            for name, one in found.items()
        },
        isa=isa,
        rounds=len(seconds[WHOLE]),
        milliseconds=found,
        processor_milliseconds=processor,
    )
