"""A test that asks for `engine` runs once for each way to the answer.

That is each backend of the CPU, for the compiled one on each instruction set of the machine, both by brute force
(which small or unstructured data gets) and by bounds, which it takes unasked only where they pay; and the CUDA kernels
on the CPU by a few routes. The marker `engines` changes the choice:

- ``routes="every"`` or ``routes="filters"``: what depends on the filter takes every route of CUDA, or one for each
  format of the rows, with leading directions and without,
- ``routes="one"`` or ``routes="none"``: what takes long, and what is about the threads of the CPU,
- ``pruned=False``: what is not a search is the same with bounds and without,
- ``only="native"``: one backend's own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from kernel_cases import Engine, cpu_engines, cuda_engines, running

import inreach_fast


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "engine" not in metafunc.fixturenames:
        return
    choice: dict[str, Any] = {"routes": "few", "pruned": True, "only": None}
    for mark in reversed(list(metafunc.definition.iter_markers("engines"))):  # the test's own last
        choice |= mark.kwargs
    engines = cpu_engines(pruned=choice["pruned"]) + cuda_engines(choice["routes"])
    chosen = [engine for engine in engines if choice["only"] in (None, engine.backend)]
    metafunc.parametrize("engine", chosen, ids=str, indirect=True)


@pytest.fixture
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    chosen: Engine = request.param
    if chosen.backend == "native" and chosen.pruned:
        from inreach_fast.kernels.cpu import native

        monkeypatch.setattr(native, "_MIN_BANK_ROWS", 1)
        monkeypatch.setattr(native, "_MIN_CAPTURED", -1.0)
        monkeypatch.setattr(native, "_MAX_PARTICIPATION", float("inf"))
        monkeypatch.setattr(native, "_MIN_CALL_WORK", 0.0)
    with running(chosen):
        yield chosen


@pytest.fixture
def threads() -> Iterator[None]:
    """Puts the number of threads back."""
    before = inreach_fast.get_num_threads()
    yield
    inreach_fast.set_num_threads(before)
