"""`CupyGpu` on a stub of CuPy: what is asked of CuPy, in which form, and what becomes of its errors."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from gpu_fakes import cupy_stub
from gpu_fakes.gpus import HostGpu
from kernel_cases import Engine, check_mutual, check_nearest, gaussian

from inreach_fast import errors, kernels
from inreach_fast.kernels import registry
from inreach_fast.kernels.gpu.devices import opening


@pytest.fixture
def cupy(host_gpus: list[HostGpu], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> SimpleNamespace:
    found = registry._found
    monkeypatch.setattr(registry, "_found", lambda needed: needed == "cupy" or found(needed))
    monkeypatch.setattr(opening, "_opened", {})
    monkeypatch.setenv("CUPY_CACHE_DIR", str(tmp_path / "kernels"))
    return cupy_stub.install(monkeypatch)


def test_searches_are_the_reference(cupy: SimpleNamespace) -> None:
    rng = np.random.default_rng(0)
    queries, bank = gaussian(rng, 9, 37), gaussian(rng, 120, 37)
    check_nearest(Engine("cupy"), queries, bank)
    check_nearest(Engine("cupy:0"), queries, bank, 3, np.arange(9) % 3, np.arange(120) % 3)
    check_mutual(Engine("cupy"), queries, bank)
    assert "decide" in cupy.gpu.launches


def test_the_kernels_are_compiled_once_from_one_text(cupy: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.ones((3, 4), np.float32)
    for _ in range(2):
        kernels.nearest(rows, rows, backend="cupy")
    monkeypatch.setattr(opening, "_opened", {})  # as in the next process: it is on disk
    opening.open_gpu("cupy", 0)
    ((source, options),) = cupy.compiled
    assert "#include" not in source
    assert "first_nonfinite_row" in source
    assert options[-1] == "--gpu-architecture=sm_90"
    assert "--ftz=false" in options
    assert not any("fast" in option for option in options)
    assert cupy.modules == [b"cubin", b"cubin"]
    assert cupy.destroyed == 1


def test_a_gpu_that_nvrtc_does_not_know_is_given_ptx(cupy: SimpleNamespace) -> None:
    cupy.architectures = (75, 80)
    rows = np.ones((3, 4), np.float32)
    assert kernels.nearest(rows, rows, backend="cupy").index.tolist() == [0, 0, 0]
    assert cupy.compiled[0][1][-1] == "--gpu-architecture=compute_80"
    assert cupy.modules == [b"ptx"]


@pytest.mark.parametrize("damage", [b"", b"x" * 32, b"\0" * 40])
def test_what_is_damaged_on_disk_is_compiled_again(
    cupy: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, damage: bytes
) -> None:
    opening.open_gpu("cupy", 0)
    (kept,) = (tmp_path / "kernels").iterdir()
    kept.write_bytes(damage)
    monkeypatch.setattr(opening, "_opened", {})
    opening.open_gpu("cupy", 0)
    assert len(cupy.compiled) == 2
    assert cupy.modules == [b"cubin", b"cubin"]


def test_kernels_that_do_not_compile_and_no_compiler(cupy: SimpleNamespace) -> None:
    for what, words in (("compile", "error: no such thing"), ("load nvrtc", "failed to load libnvrtc")):
        cupy.fails = {what: 1}
        with pytest.raises(errors.GpuUnavailableError, match=words):
            opening.open_gpu("cupy", 0)


@pytest.mark.parametrize(
    ("call", "code", "kind"),
    [
        ("load", 35, errors.GpuUnavailableError),
        ("launch", 719, errors.GpuLostError),
        ("memcpyAsync", 700, errors.GpuLostError),
        ("launch", 2, errors.GpuMemoryError),
        ("launch", 999, errors.GpuLostError),
        ("launch", 1, errors.GpuError),
    ],
)
def test_errors_are_typed(cupy: SimpleNamespace, call: str, code: int, kind: Any) -> None:
    cupy.fails[call] = code
    rows = np.ones((3, 4), np.float32)
    with pytest.raises(kind, match=f"FAKE_ERROR_{code}"):
        kernels.nearest(rows, rows, backend="cupy")


def test_a_full_gpu(cupy: SimpleNamespace) -> None:
    rows = np.ones((3, 4), np.float32)
    kernels.nearest(rows, rows, backend="cupy")
    cupy.memory_full = True
    with pytest.raises(errors.GpuMemoryError, match="memory is full"):
        kernels.nearest(rows, rows, backend="cupy")
