"""`inreach fit --workers` and `--ray`."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from cli_cases import FAST, Run

from inreach_fast.cli import exit_codes


def test_workers_write_the_same_file(run: Run, training: Path, model: Path, tmp_path: Path) -> None:
    done = run("fit", training, "-o", tmp_path / "m.inreach", "--workers", 2, *FAST)
    assert done.code == exit_codes.SUCCESS, done.err
    assert (tmp_path / "m.inreach").read_bytes() == model.read_bytes()


@pytest.mark.parametrize("address", ["nonsense", "processes:2", "node:", "http://node:6379"])
def test_an_address_that_is_none(run: Run, training: Path, tmp_path: Path, address: str) -> None:
    done = run("fit", training, "-o", tmp_path / "m.inreach", "--ray", address, *FAST)
    assert done.code == exit_codes.USAGE
    assert "HOST:PORT" in done.error


def test_a_cluster_that_is_not_there(run: Run, training: Path, tmp_path: Path) -> None:
    done = run("fit", training, "-o", tmp_path / "m.inreach", "--ray", "127.0.0.1:1", *FAST)
    assert done.code == exit_codes.BACKEND
    ray_is_here = importlib.util.find_spec("ray") is not None
    assert ("cannot be reached" if ray_is_here else "pip install 'inreach_fast[ray]'") in done.error
    assert not (tmp_path / "m.inreach").exists()


def test_no_workers(run: Run, training: Path, tmp_path: Path) -> None:
    done = run("fit", training, "-o", tmp_path / "m.inreach", "--workers", 0, *FAST)
    assert done.code == exit_codes.USAGE
