"""Every test that asks for `engine` runs once for each backend, and for each instruction set it can run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from kernel_cases import Engine, engines

import inreach_fast


@pytest.fixture(params=engines(), ids=lambda e: e.backend if e.isa is None else f"{e.backend}-{e.isa}")
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    chosen: Engine = request.param
    if chosen.isa is None:
        yield chosen
        return
    from inreach_fast import _core

    before = _core.isa()
    _core.set_isa(chosen.isa)
    yield chosen
    _core.set_isa(before)


@pytest.fixture
def threads() -> Iterator[None]:
    """Puts the number of threads back."""
    before = inreach_fast.get_num_threads()
    yield
    inreach_fast.set_num_threads(before)
