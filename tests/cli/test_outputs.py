"""Whole files or none; names; JSON; progress; tables."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inreach_fast.cli.console import Console, Progress, format_number, format_seconds, format_table, jsonable
from inreach_fast.cli.options import depth, size
from inreach_fast.cli.outputs import OutputNames, write_csv, write_whole
from inreach_fast.errors import SaveError


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_an_interrupted_write_leaves_the_older_file(tmp_path: Path, error: BaseException) -> None:
    target = tmp_path / "out.bin"
    target.write_text("older")

    def fail(stream: Any) -> None:
        stream.write(b"half")
        raise error

    with pytest.raises(SaveError if isinstance(error, OSError) else KeyboardInterrupt):
        write_whole(target, fail)
    assert target.read_text() == "older"
    assert [path.name for path in tmp_path.iterdir()] == ["out.bin"]


_NAMES = st.sampled_from(["a", "b", "A", "a.x", "c d"])


@given(st.lists(st.tuples(st.lists(_NAMES, max_size=2), _NAMES, st.sampled_from([".png", ".PNG", ".jpg"])), min_size=1))
def test_output_names_never_collide(parts: list[tuple[list[str], str, str]]) -> None:
    inputs = sorted({Path("/in", *folders, stem + suffix) for folders, stem, suffix in parts})
    names = OutputNames(inputs)
    outputs = [str(names.path(Path("/out"), path, ".npy")) for path in inputs]
    # Distinct even where the file system takes upper and lower case for one.
    folders = {str(path.parent).casefold() for path in inputs}
    if len(folders) == len({path.parent for path in inputs}):
        assert len({name.casefold() for name in outputs}) == len(inputs)
    assert len(set(outputs)) == len(inputs)
    assert all(name.startswith("/out/") for name in outputs)


def test_csv_of_odd_values(tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", ["a", "b"], [{"a": float("nan"), "b": 'x,"y"\n'}, {"a": np.float32(0.5), "b": 1}])
    assert (tmp_path / "a.csv").read_text() == 'a,b\n,"x,""y""\n"\n0.5,1\n'


def test_json_has_no_nan() -> None:
    value = {"a": np.float32("nan"), "b": [np.int64(3), float("inf")], "c": Path("x"), "d": np.arange(2), "e": np.True_}
    assert (
        json.dumps(jsonable(value), allow_nan=False) == '{"a": null, "b": [3, null], "c": "x", "d": [0, 1], "e": true}'
    )


def test_names_that_the_terminal_cannot_say(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(raw, encoding="ascii"))
    console = Console()
    console.result("caf\u00e9 \udcff")
    assert raw.getvalue() == b"caf\\xe9 \\udcff\n"


def test_progress_without_a_terminal_prints_quarters() -> None:
    stream = io.StringIO()
    progress = Progress(stream, bars=False)
    for done in range(1, 101):
        progress("read", done, 100)
    progress("filter", 1, 1)
    lines = [line.split(" (")[0] for line in stream.getvalue().splitlines()]
    assert lines == ["read: 1/100", "read: 25/100", "read: 50/100", "read: 75/100", "read: 100/100", "filter: 1/1"]


def test_progress_bars() -> None:
    stream = io.StringIO()
    progress = Progress(stream, bars=True)
    for done in (1, 2, 3):
        progress("read", done, 3)
    progress("describe", 1, 2)
    progress.close()
    assert "read" in stream.getvalue()
    assert "3/3" in stream.getvalue()
    assert "describe" in stream.getvalue()


def test_tables_and_numbers() -> None:
    table = format_table(["name", "n"], [["a", 1], ["long name", None]])
    assert table.splitlines() == ["name       n", "---------  -", "a          1", "long name  -"]
    assert [format_number(v) for v in (0.0, 1.0, 0.98765, 1234.5, 1e9)] == [
        "0.000",
        "1.000",
        "0.9877",
        "1234",
        "1.000e+09",
    ]
    assert [format_seconds(v) for v in (0.5, 12.34, 125.0)] == ["0.50 s", "12.3 s", "2 min 05 s"]


def test_sizes_and_depths() -> None:
    assert (size("224"), size("256x384")) == (224, (256, 384))
    assert (depth("13"), depth("pc"), depth("a, b")) == (13, "PC", ("a", "b"))
