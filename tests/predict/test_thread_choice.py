"""ThreadChoice: which number of threads is taken, and when the numbers are tried again, by a clock of these tests."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import closing
from typing import Any

import numpy as np
import pytest
import torch
from small_fits import estimator, pictures

from inreach_fast import InReaCh, get_num_threads, set_num_threads
from inreach_fast.backbones import Backbone
from inreach_fast.errors import ParameterError
from inreach_fast.predict.thread_choice import ThreadChoice, candidates
from inreach_fast.system.threads import thread_limit


class Machine:
    """A clock, and work whose seconds depend on the number of threads."""

    def __init__(self, seconds: Callable[[int], float]) -> None:
        self.seconds, self.now, self.used = seconds, 0.0, list[int]()
        self.others: set[int] = set()  # numbers with which the work has another result

    def clock(self) -> float:
        return self.now

    def work(self) -> Any:
        self.used.append(get_num_threads())
        self.now += self.seconds(get_num_threads())
        return np.array([get_num_threads() in self.others])

    def image(self, choice: ThreadChoice, count: int = 1) -> None:
        with choice.images(count):
            for _ in range(count):
                self.work()


QUIET = {1: 4.0, 2: 2.0, 3: 1.5, 4: 1.0}
BUSY = {1: 4.0, 2: 8.0, 3: 9.0, 4: 10.0}


def test_numbers_that_are_tried() -> None:
    assert candidates(1) == (1,)
    assert candidates(2) == (1, 2)
    assert candidates(5) == (1, 2, 3, 4, 5)
    assert candidates(16) == (1, 2, 3, 4, 6, 8, 12, 16)


@pytest.mark.parametrize(("times", "best"), [(QUIET, 4), (BUSY, 1)])
def test_the_fastest_number_is_measured(times: dict[int, float], best: int) -> None:
    machine = Machine(times.__getitem__)
    choice = ThreadChoice(4, clock=machine.clock)
    choice.measure(machine.work)
    assert choice.number == best
    assert set(machine.used) == {1, 2, 3, 4}
    machine.image(choice)
    assert machine.used[-1] == best


def test_a_machine_that_becomes_busy_and_quiet_again_is_followed() -> None:
    machine = Machine(QUIET.__getitem__)
    choice = ThreadChoice(4, clock=machine.clock)
    choice.measure(machine.work)
    machine.seconds = BUSY.__getitem__
    for _ in range(32):
        machine.image(choice)
    assert choice.number == 1
    machine.seconds = lambda n: QUIET[n] / 2
    for _ in range(200):
        machine.image(choice)
    assert choice.number == 4  # by way of the neighbours


def test_latencies_that_do_not_change_are_left_alone() -> None:
    machine = Machine(QUIET.__getitem__)
    choice = ThreadChoice(4, clock=machine.clock)
    choice.measure(machine.work)
    machine.used.clear()
    machine.seconds = lambda n: 1.3 * QUIET[n]
    for _ in range(100):
        machine.image(choice)
    assert set(machine.used) == {4}


def test_a_number_is_kept_unless_another_is_clearly_faster() -> None:
    machine = Machine({1: 0.95, 2: 1.0}.__getitem__)
    choice = ThreadChoice(2, clock=machine.clock)
    choice.measure(machine.work)
    assert choice.number == 2


def test_trials_that_change_nothing_become_rare() -> None:
    machine = Machine(QUIET.__getitem__)
    choice = ThreadChoice(4, clock=machine.clock)
    choice.measure(machine.work)
    scale = 1.0
    tried = []
    for i in range(2000):
        if i % 16 == 0:
            scale = 3.0 if scale == 1.0 else 1.0
        machine.seconds = lambda n, s=scale: s * QUIET[n]
        machine.used.clear()
        machine.image(choice)
        tried.append(machine.used[0] != 4)
    assert sum(tried[1000:]) < 0.05 * 1000
    assert choice.number == 4


def test_seconds_are_those_of_one_image() -> None:
    machine = Machine(QUIET.__getitem__)
    choice = ThreadChoice(4, clock=machine.clock)
    choice.measure(machine.work)
    machine.used.clear()
    for i in range(64):
        machine.image(choice, 1 + i % 5)
    assert set(machine.used) == {4}


def test_an_image_that_fails_is_not_counted_and_the_numbers_are_as_before() -> None:
    machine = Machine(QUIET.__getitem__)
    choice = ThreadChoice(4, clock=machine.clock)
    choice.measure(machine.work)
    before = get_num_threads(), torch.get_num_threads()

    def fail(_: int) -> float:
        machine.now += 1000.0
        raise KeyError

    machine.seconds = fail
    for _ in range(40):
        with pytest.raises(KeyError):
            machine.image(choice)
    machine.seconds = QUIET.__getitem__
    assert (get_num_threads(), torch.get_num_threads()) == before
    machine.used.clear()
    machine.image(choice)
    assert machine.used == [4]


def test_a_limit_holds_for_its_own_thread_alone() -> None:
    set_before = get_num_threads()
    set_num_threads(3)
    try:
        choice = ThreadChoice(1, fixed=True)
        elsewhere = []
        with choice.images(1):
            thread = threading.Thread(target=lambda: elsewhere.append(get_num_threads()))
            thread.start()
            thread.join()
            assert get_num_threads() == torch.get_num_threads() == 1
        assert elsewhere == [3]
        assert get_num_threads() == 3
    finally:
        set_num_threads(set_before)


@pytest.fixture(scope="module")
def model() -> InReaCh:
    return estimator().fit(pictures(6))


def test_numbers_with_other_results_are_left_out() -> None:
    machine = Machine(QUIET.__getitem__)
    machine.others = {1, 4}
    choice = ThreadChoice(4, clock=machine.clock)
    with thread_limit(2):
        choice.measure(machine.work)
    assert choice.number == 3
    machine.used.clear()
    for i in range(400):
        machine.seconds = lambda n, s=1 + i // 40 % 2: s * s * QUIET[n]
        machine.image(choice)
    assert set(machine.used) == {2, 3}


@pytest.mark.parametrize("threads", ["auto", 1])
def test_predictions_do_not_depend_on_the_threads(model: InReaCh, threads: int | str) -> None:
    image = pictures(7)[6]
    with thread_limit(1):  # other numbers can change the features
        expected = model.predict(image)
        found = model.prepare(threads=threads).predict(image)
    assert found.score == expected.score
    np.testing.assert_array_equal(found.anomaly_map, expected.anomaly_map)
    with thread_limit(1), closing(model.predict_stream([image])) as stream:
        assert next(iter(stream)).score == expected.score


def test_tiles_and_regions_of_interest_are_measured_whole() -> None:
    roi = [(0.1, 0.1), (0.9, 0.1), (0.9, 0.9)]
    tiled = estimator(tile=2, tile_overlap=8, roi=roi).fit(pictures())
    image = pictures(7)[6]
    with thread_limit(1):
        assert tiled.predict(image).score == tiled.prepare(threads="auto").predict(image).score


def test_the_network_is_prepared_with_the_threads_of_predictions(monkeypatch: pytest.MonkeyPatch) -> None:
    used, extract, before = [], Backbone.extract, get_num_threads()

    def spy(self: Backbone, *arguments: Any, **options: Any) -> Any:
        used.append(get_num_threads())
        return extract(self, *arguments, **options)

    model = estimator().fit(pictures(6))
    monkeypatch.setattr(Backbone, "extract", spy)
    set_num_threads(3)
    try:
        model.prepare(threads=2).predict(pictures(1)[0])
    finally:
        set_num_threads(before)
    assert used == [2, 2]


@pytest.mark.parametrize("threads", [0, 1.5, "many", True, 1025])
def test_a_wrong_number(model: InReaCh, threads: object) -> None:
    with pytest.raises(ParameterError, match="threads"):
        model.prepare(threads=threads)  # type: ignore[arg-type]


def test_auto_is_refused_without_a_network() -> None:
    rows = np.random.default_rng(0).normal(size=(6, 64, 8)).astype(np.float32)
    model = InReaCh().fit_descriptors(rows, (8, 8))
    with pytest.raises(ParameterError, match="descriptors"):
        model.prepare(threads="auto")
