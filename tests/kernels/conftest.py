"""Every test that asks for `engine` runs once for each way to the answer.

That is each backend, for the compiled one on each instruction set of the machine, both by brute force
(which small or unstructured data gets) and by bounds, which it takes of its own accord only where they pay.
"""

from __future__ import annotations

from collections.abc import Iterator

import cuda_host.backend
import cuda_host.build
import pytest
from kernel_cases import Engine, engines

import inreach_fast


def _name(engine: Engine) -> str:
    if engine.case is not None:
        return f"{engine.backend}-{engine.case.name}"
    return "-".join(filter(None, (engine.backend, engine.isa, "pruned" if engine.pruned else None)))


# Of threads of the CPU, which the CUDA kernels know nothing of, and of what CUDA cannot do.
_NOT_FOR_CUDA = {
    "test_thread_counts_give_the_same_bits",
    "test_threads_change_nothing",
    "test_the_number_of_threads_may_change_in_the_middle",
    "test_use_after_fork",
}


def _wanted(engine: Engine, test: str) -> bool:
    return engine.case is None or test not in _NOT_FOR_CUDA


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "engine" not in metafunc.fixturenames:
        return
    chosen = [engine for engine in engines() if _wanted(engine, metafunc.function.__name__)]
    metafunc.parametrize("engine", chosen, ids=_name, indirect=True)


@pytest.fixture
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    chosen: Engine = request.param
    if chosen.case is not None:
        if cuda_host.build.compiler() is None:
            pytest.skip("NO C++ COMPILER: the CUDA kernels were not run on the CPU")
        with cuda_host.backend.registered(chosen.case):
            yield chosen
        return
    if chosen.isa is None:
        yield chosen
        return
    from inreach_fast import _core

    if chosen.pruned:
        from inreach_fast.kernels.cpu import native

        monkeypatch.setattr(native, "_MIN_BANK_ROWS", 1)
        monkeypatch.setattr(native, "_MIN_CAPTURED", -1.0)
        monkeypatch.setattr(native, "_MAX_PARTICIPATION", float("inf"))
        monkeypatch.setattr(native, "_MIN_CALL_WORK", 0.0)
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
