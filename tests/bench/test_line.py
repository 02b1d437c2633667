"""The benches of a line at small sizes: processes that are killed, a service under hostile load."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))  # last: an installed package must not be hidden by the source tree

from bench import line_serve, line_watch  # noqa: E402


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM to send")
def test_killed_again_and_again_each_image_is_reported_once(tmp_path: Path) -> None:
    found = line_watch.watch_with_kills(tmp_path, images=60, kills=1)
    assert found["wrong"] == []
    assert (found["reported"], found["bad"], len(found["lives"])) == (60, 1, 2)
    assert min(found["lives"]) > 0


def test_differences_are_found(tmp_path: Path) -> None:
    files = {name: line_watch.cases.Case(b"", ".png", score) for name, score in (("a", 1.0), ("b", None), ("c", 2.0))}
    right = [{"file": "a", "score": 1.0}, {"file": "b", "error": "x"}, {"file": "c", "score": 2.0}]
    assert line_watch._differences(right, files) == []
    for wrong in (right[:2], [*right, right[0]], [{**right[0], "score": 1.5}, *right[1:]], [*right, {"file": "d"}]):
        assert len(line_watch._differences(wrong, files)) == 1


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM to send")
def test_a_service_under_load_gives_no_wrong_answer(tmp_path: Path) -> None:
    pytest.importorskip("fastapi", reason="FastAPI is not installed (extra [serve])")
    found = line_serve.load(tmp_path, requests=150, clients=4)
    assert found["wrong"] == []
    assert (
        sum(found["statuses"].values()) + sum(found["hostile"].get(k, 0) for k in ("half a request", "no HTTP")) == 150
    )
