"""Worker processes: order, laziness, errors, losses; and none is left behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import executor_specs as specs
import numpy as np
import pytest
from executors.conftest import eventually

import inreach_fast
from inreach_fast.errors import ExecutorError, ParameterError, SaveError, WorkerLostError
from inreach_fast.executors import Executor, LocalExecutor, ProcessExecutor, make_executor, processes

pytestmark = [
    pytest.mark.usefixtures("no_process_left"),
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc"),
]

BOTH = ["local", "processes:2"]


@pytest.fixture(params=BOTH)
def executor(request: pytest.FixtureRequest) -> Executor:
    return make_executor(request.param)


# ------------------------------------------------------------------------------------------- what both promise


def test_results_are_in_the_order_of_the_tasks(executor: Executor) -> None:
    factors = np.random.default_rng(0).normal(size=(300, 70)).astype(np.float32)
    got = list(executor.run(specs.Scale(factors), range(9)))
    assert len(got) == 9
    for task, result in enumerate(got):
        assert result.dtype == np.float32
        np.testing.assert_array_equal(result, factors * task)


def test_a_slow_task_does_not_change_the_order() -> None:
    assert list(ProcessExecutor(3).run(specs.Fails(slow=0), range(3))) == [0, 1, 2]


def test_no_tasks_no_results_and_nothing_is_started(
    executor: Executor, no_process_left: Callable[[], set[int]]
) -> None:
    results = executor.run(specs.NeverBuilt(), iter(()))
    assert list(results) == []
    assert not no_process_left()


def test_more_workers_than_tasks(no_process_left: Callable[[], set[int]]) -> None:
    results = ProcessExecutor(5).run(specs.Echo(), range(2))
    assert next(results) == 0
    assert len(no_process_left()) == 2
    assert list(results) == [1]


def test_tasks_are_consumed_lazily_and_results_do_not_pile_up() -> None:
    pulled = 0

    def tasks() -> Iterator[int]:
        nonlocal pulled
        for task in range(40):
            pulled += 1
            yield task

    for done, _ in enumerate(ProcessExecutor(2).run(specs.Echo(), tasks()), start=1):
        assert pulled <= done + 4  # two tasks per worker
    assert done == pulled == 40


@pytest.mark.parametrize(("error", "kind"), [("save", SaveError), ("exit", SystemExit)])
def test_an_error_keeps_its_type_and_comes_after_all_earlier_results(
    executor: Executor, error: str, kind: type[BaseException]
) -> None:
    got: list[int] = []
    with pytest.raises(kind) as caught:
        got.extend(executor.run(specs.Fails(error, slow=2), range(50)))
    assert got == [0, 1, 2]
    if kind is SaveError:
        assert (caught.value.errno, str(caught.value)) == (28, "disk full at 3")


def test_an_error_of_the_iterable_comes_after_all_earlier_results(executor: Executor) -> None:
    def tasks() -> Iterator[int]:
        yield from range(5)
        raise KeyError("no more")

    got: list[int] = []
    with pytest.raises(KeyError, match="no more"):
        got.extend(executor.run(specs.Echo(), tasks()))
    assert got == [0, 1, 2, 3, 4]


def test_an_error_while_the_worker_is_built_keeps_its_type(executor: Executor) -> None:
    with pytest.raises(ParameterError, match=r"^device: not here$"):
        list(executor.run(specs.NeverBuilt(ParameterError("device: not here")), range(5)))


def test_tasks_and_results_larger_than_any_pipe(executor: Executor) -> None:
    tasks = [np.full(700_000, i, dtype=np.float64) for i in range(6)]
    for task, result in zip(tasks, executor.run(specs.Echo(), tasks), strict=True):
        np.testing.assert_array_equal(task, result)
        assert result.flags.writeable


# ------------------------------------------------------------------------------------------ what is packed


def test_the_workers_traceback_is_the_errors_cause() -> None:
    with pytest.raises(SaveError) as caught:
        list(ProcessExecutor(1).run(specs.Fails(), range(5)))
    assert "in call" in str(caught.value.__cause__)
    assert "disk full at 3" in str(caught.value.__cause__)


def test_an_error_that_cannot_be_pickled_is_described() -> None:
    with pytest.raises(ExecutorError, match="OddError: 3 and 2"):
        list(ProcessExecutor(1).run(specs.Fails("odd"), range(5)))


def test_a_result_that_cannot_be_pickled_is_named() -> None:
    with pytest.raises(ParameterError, match=r"^result: a function that cannot be sent"):
        list(ProcessExecutor(1).run(specs.Fails("result"), range(5)))


def test_a_spec_that_cannot_be_pickled_is_named() -> None:
    class Local(specs.Echo):
        pass

    with pytest.raises(ParameterError, match=r"^spec: a Local that cannot be sent.*executor='local'"):
        list(ProcessExecutor(1).run(Local(), range(5)))


def test_a_task_that_cannot_be_pickled_is_named_after_all_earlier_results() -> None:
    tasks: list[Any] = [1, 2, lambda: 3, 4]
    got: list[Any] = []
    with pytest.raises(ParameterError, match=r"^task 2: a function that cannot be sent"):
        got.extend(ProcessExecutor(2).run(specs.Echo(), tasks))
    assert got == [1, 2]


def test_a_spec_of_the_program_itself_is_refused_and_a_program_needs_no_main_guard(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "from inreach_fast.executors import make_executor\n"
        "class Mine:\n"
        "    def build(self): return str\n"
        "try:\n"
        "    print(list(make_executor('processes:1').run(Mine(), range(3))))\n"
        "except ValueError as error:\n"
        "    print(error)\n"
        "from executor_specs import Echo\n"
        "print(list(make_executor('processes:1').run(Echo(), range(3))))\n"
    )
    done = run_python(str(program))
    assert "Mine is defined in the program that is being run" in done.stdout
    assert "[0, 1, 2]" in done.stdout


def test_a_spec_is_shared_and_read_only() -> None:
    (mine, theirs) = specs.Shared(np.arange(1000.0)), ProcessExecutor(2)
    assert set(theirs.run(mine, range(6))) == {(False, 499500.0)}


# ----------------------------------------------------------------------------------------------- environment


@pytest.mark.parametrize(("processors", "kernel_threads"), [(9, 4), (6, 3), (1, 1)])
def test_workers_have_this_process_number_of_torch_threads_and_a_share_for_the_kernels(
    monkeypatch: pytest.MonkeyPatch, processors: int, kernel_threads: int
) -> None:
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads(), inreach_fast.get_num_threads()
    monkeypatch.setattr(processes, "processors", lambda: processors)
    try:
        torch.set_num_threads(3)
        inreach_fast.set_num_threads(4)
        assert processes.thread_settings(2) == {"torch_threads": 3, "kernel_threads": kernel_threads}
    finally:
        torch.set_num_threads(before[0])
        inreach_fast.set_num_threads(before[1])


def test_workers_keep_to_their_settings_and_have_the_same_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INREACH_ISA", "scalar")
    settings = {"torch_threads": 3, "kernel_threads": 2}
    monkeypatch.setattr(processes, "thread_settings", lambda workers: settings)
    told = list(ProcessExecutor(1).run(specs.Who(torch=True), range(4)))
    assert {(t["torch_threads"], t["kernel_threads"], t["isa"]) for t in told} == {(3, 2, "scalar")}
    assert os.getpid() not in {t["pid"] for t in told}


def test_without_a_number_workers_share_the_processors(
    monkeypatch: pytest.MonkeyPatch, no_process_left: Callable[[], set[int]]
) -> None:
    monkeypatch.setattr(processes, "processors", lambda: 7)
    monkeypatch.setattr(processes, "torch_threads", lambda: 2)
    results = ProcessExecutor().run(specs.Echo(), range(20))
    assert next(results) == 0
    assert len(no_process_left()) == 3
    assert list(results) == list(range(1, 20))


def test_what_a_worker_prints_does_not_reach_stdout() -> None:
    done = run_python(
        "-c",
        "from inreach_fast.executors import make_executor\nfrom executor_specs import Prints\n"
        "print(list(make_executor('processes:1').run(Prints(), range(2))))",
    )
    assert done.stdout.strip() == "[0, 1]"
    assert "noise 1" in done.stderr


# ---------------------------------------------------------------------------------------------------- losses


def test_a_lost_workers_tasks_are_done_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    want = list(LocalExecutor().run(specs.Dies(str(tmp_path), 4, 0), range(10)))
    got = list(ProcessExecutor(2).run(specs.Dies(str(tmp_path), 4, 2), range(10)))
    assert len(os.listdir(tmp_path)) == 2
    for mine, theirs in zip(want, got, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert "SIGKILL" in caplog.text


def test_a_worker_killed_from_outside_while_it_works() -> None:
    results = ProcessExecutor(2).run(specs.Who(), range(20))
    told = [next(results)]
    os.kill(told[0]["pid"], signal.SIGKILL)
    told += results
    assert [t["task"] for t in told] == list(range(20))
    assert len({t["pid"] for t in told}) >= 2


def test_all_workers_killed_at_once(no_process_left: Callable[[], set[int]]) -> None:
    results = ProcessExecutor(2).run(specs.Who(), range(12))
    told = [next(results)]
    for pid in no_process_left():
        os.kill(pid, signal.SIGKILL)
    told += results
    assert [t["task"] for t in told] == list(range(12))


def test_a_task_that_kills_every_worker_is_named_after_all_earlier_results(tmp_path: Path) -> None:
    got: list[int] = []
    with pytest.raises(WorkerLostError, match=r"^task 3 \(3\): 3 times the worker process .* was lost .*SIGKILL"):
        got.extend(int(result[0]) for result in ProcessExecutor(2).run(specs.Dies(str(tmp_path), 3, 99), range(9)))
    assert got == [0, 1, 2]
    assert len(os.listdir(tmp_path)) == 3


def test_workers_that_die_while_they_start() -> None:
    with pytest.raises(WorkerLostError, match="lost while it started"):
        list(ProcessExecutor(2).run(specs.NeverBuilt(), range(9)))


def test_a_child_of_a_worker_that_holds_its_socket_does_not_hide_its_death(tmp_path: Path) -> None:
    with pytest.raises(WorkerLostError, match=r"^task 0"):
        list(ProcessExecutor(1).run(specs.LeavesAChild(str(tmp_path / "pids")), range(1)))
    for pid in (tmp_path / "pids").read_text().split():
        os.kill(int(pid), signal.SIGKILL)


# ------------------------------------------------------------------------------------------------------- ends


def test_closing_the_iterator_ends_the_workers_in_the_middle_of_their_tasks(
    tmp_path: Path, no_process_left: Callable[[], set[int]]
) -> None:
    results: Any = ProcessExecutor(2).run(specs.Blocks(str(tmp_path)), range(9))
    assert next(results) == 0
    assert eventually(lambda: list(tmp_path.iterdir()))
    results.close()
    assert eventually(lambda: not no_process_left())


def test_an_iterator_that_is_dropped_ends_the_workers(no_process_left: Callable[[], set[int]]) -> None:
    results: Any = ProcessExecutor(2).run(specs.Echo(), range(9))
    next(results)
    assert no_process_left()
    del results
    assert eventually(lambda: not no_process_left())


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_workers_and_their_files_go_with_the_program_however_it_ends(how: signal.Signals, tmp_path: Path) -> None:
    program = (
        "import executor_specs\nfrom inreach_fast.executors import make_executor\n"
        "results = make_executor('processes:1').run(executor_specs.Who(), range(10**9))\n"
        "for told in results: print(told['pid'], flush=True)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**environment(), "TMPDIR": str(tmp_path)},
    )
    assert process.stdout is not None
    pid = int(process.stdout.readline())
    assert list(tmp_path.iterdir())
    process.send_signal(how)
    process.stdout.close()
    stderr = process.stderr.read() if process.stderr else ""
    process.wait()
    assert eventually(lambda: not alive(pid) and not list(tmp_path.iterdir()))
    assert len(re.findall("Traceback", stderr)) == (1 if how == signal.SIGINT else 0), stderr


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def environment() -> dict[str, str]:
    root, tests = Path(inreach_fast.__file__).parents[1], Path(specs.__file__).parent
    path = os.pathsep.join(p for p in (str(root), str(tests), os.environ.get("PYTHONPATH")) if p)
    return {**os.environ, "PYTHONPATH": path}


def run_python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], env=environment(), capture_output=True, text=True, check=True)
