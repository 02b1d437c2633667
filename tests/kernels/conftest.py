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


# Every way through the CUDA kernels is taken by these; the first one by all tests, as any other engine.
_EVERY_CASE = {
    "test_any_shape_and_data",
    "test_the_answer_is_float64s",
    "test_k_is_the_whole_bank_and_more",
    "test_no_eligible_row",
    "test_large_and_negative_group_ids",
    "test_distances_beyond_float32_are_infinite_with_their_index",
    "test_a_set_with_itself",
    "test_one_row_each",
    "test_the_rows_found_answer",
    "test_nobody_is_asked_where_nobody_is_found",
    "test_equal_queries_of_one_row_give_it_to_the_first",
    "test_no_hint_changes_the_answer",
}
# Of threads of the CPU, which the CUDA kernels know nothing of, and of what CUDA cannot do.
_NOT_FOR_CUDA = {
    "test_thread_counts_give_the_same_bits",
    "test_threads_change_nothing",
    "test_the_number_of_threads_may_change_in_the_middle",
    "test_use_after_fork",
}


def _wanted(engine: Engine, test: str) -> bool:
    if engine.case is None or test in _EVERY_CASE:
        return True
    if test == "test_structured_data_with_groups":  # by leading directions, which it is made for
        return engine.case.name in ("f32-128", "heads-fp16-64-overflow", "heads-bf16-64", "heads-tf32-64")
    return engine.case is cuda_host.backend.CASES[0] and test not in _NOT_FOR_CUDA


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
        from inreach_fast.kernels import native

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
