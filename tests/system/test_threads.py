"""set_num_threads, get_num_threads and INREACH_NUM_THREADS."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import inreach_fast
from inreach_fast.errors import ParameterError
from inreach_fast.system import threads


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    before = inreach_fast.get_num_threads()
    yield
    inreach_fast.set_num_threads(before)


def in_new_process(code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    root = str(Path(inreach_fast.__file__).parents[1])
    path = os.pathsep.join(p for p in (root, os.environ.get("PYTHONPATH")) if p)
    environment = {k: v for k, v in os.environ.items() if k != "INREACH_NUM_THREADS"}
    return subprocess.run(
        [sys.executable, "-c", f"import inreach_fast\n{code}"],
        env={**environment, "PYTHONPATH": path, **variables},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("count", [1, 2, 7, 1024, np.int64(3), np.uint8(4)])
def test_what_is_set_is_what_is_got(count: Any) -> None:
    inreach_fast.set_num_threads(count)
    assert inreach_fast.get_num_threads() == int(count)


@pytest.mark.parametrize("count", [0, -1, 1025, 2**70, 1.0, "2", None, True, np.bool_(True)])
def test_anything_else_is_refused_and_changes_nothing(count: Any) -> None:
    inreach_fast.set_num_threads(3)
    with pytest.raises(ParameterError, match="set_num_threads"):
        inreach_fast.set_num_threads(count)
    assert inreach_fast.get_num_threads() == 3


def test_the_variable_is_the_start_value() -> None:
    done = in_new_process("print(inreach_fast.get_num_threads())", INREACH_NUM_THREADS="3")
    assert (done.returncode, done.stdout.strip()) == (0, "3"), done.stderr


@pytest.mark.parametrize("text", [None, ""])
def test_without_it_the_processors_of_this_process_count(text: str | None) -> None:
    variables = {} if text is None else {"INREACH_NUM_THREADS": text}
    code = "import os\nprint(inreach_fast.get_num_threads() == len(os.sched_getaffinity(0)))"
    assert in_new_process(code, **variables).stdout.strip() == "True"


@pytest.mark.parametrize("text", ["0", "-2", "two", "2.5", "1025", "2 3"])
def test_a_wrong_variable_is_an_error_that_names_it(text: str) -> None:
    code = (
        "from inreach_fast.errors import ParameterError\n"
        "try:\n    inreach_fast.get_num_threads()\n"
        "except ParameterError as error:\n    print(error)"
    )
    done = in_new_process(code, INREACH_NUM_THREADS=text)
    assert done.returncode == 0, done.stderr
    assert "INREACH_NUM_THREADS" in done.stdout


@pytest.mark.parametrize("backend", inreach_fast.kernels.available_backends())
def test_a_wrong_variable_does_not_pass_unseen_in_a_kernel(backend: str) -> None:
    if backend == "torch":
        pytest.skip("torch has its own setting")
    code = (
        "import numpy as np\n"
        "from inreach_fast.errors import ParameterError\n"
        "x = np.ones((200, 3), np.float32)\n"
        f"try:\n    inreach_fast.kernels.nearest(x, x, backend={backend!r})\n"
        "except ParameterError as error:\n    print(error)"
    )
    done = in_new_process(code, INREACH_NUM_THREADS="many")
    assert done.returncode == 0, done.stderr
    assert "INREACH_NUM_THREADS" in done.stdout


def test_import_is_quick_and_loads_no_heavy_package() -> None:
    code = "import sys\nprint([m for m in ('torch', 'numba', 'scipy') if m in sys.modules])"
    done = in_new_process(code)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


WITHOUT_EXTENSION = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name == "inreach_fast._core":
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
import numpy as np
from inreach_fast import get_num_threads, set_num_threads
from inreach_fast.errors import ParameterError
"""


def test_without_the_compiled_extension_the_number_is_kept_all_the_same() -> None:
    code = WITHOUT_EXTENSION + "print(get_num_threads()); set_num_threads(np.int64(2)); print(get_num_threads())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(Path(inreach_fast.__file__).parents[1]), "INREACH_NUM_THREADS": "3"},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout.split()) == (0, ["3", "2"]), done.stderr


@pytest.mark.parametrize("text", ["0", "-2", "two", "2.5", "1025", "2 3"])
def test_without_the_compiled_extension_a_wrong_variable_is_the_same_error(text: str) -> None:
    code = WITHOUT_EXTENSION + "try:\n    get_num_threads()\nexcept ParameterError as error:\n    print(error)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(Path(inreach_fast.__file__).parents[1]), "INREACH_NUM_THREADS": text},
        capture_output=True,
        text=True,
    )
    assert "INREACH_NUM_THREADS" in done.stdout, done.stderr


def test_the_team_of_torch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    find = threads.torch_team.__wrapped__
    if sys.platform == "linux" and "OpenMP" in torch.__config__.parallel_info():
        assert find() == threads.torch_team() > 0
    monkeypatch.setattr(torch, "__file__", str(tmp_path / "torch" / "__init__.py"))
    assert find() == 0  # no such library
    (tmp_path / "torch" / "lib").mkdir(parents=True)
    for name in ("libtorch_cpu.so", "libtorch_cpu.dylib"):
        (tmp_path / "torch" / "lib" / name).write_bytes(b"no library")
    assert find() == 0
    monkeypatch.setattr(sys, "platform", "win32")
    assert find() == 0
