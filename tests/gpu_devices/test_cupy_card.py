"""`CupyCard` on a stub of CuPy: what is asked of CuPy, in which form, and what becomes of its errors."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from gpu_fakes import cupy_stub
from gpu_fakes.cards import HostCard
from kernel_cases import Engine, check_mutual, check_nearest, gaussian

from inreach_fast import errors, kernels
from inreach_fast.kernels import registry
from inreach_fast.kernels.gpu_devices import cupy_card


@pytest.fixture
def cupy(host_cards: list[HostCard], monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    found = registry._found
    monkeypatch.setattr(registry, "_found", lambda needed: needed == "cupy" or found(needed))
    monkeypatch.setattr(cupy_card, "_cards", {})
    return cupy_stub.install(monkeypatch)


def test_searches_are_the_reference(cupy: SimpleNamespace) -> None:
    rng = np.random.default_rng(0)
    queries, bank = gaussian(rng, 9, 37), gaussian(rng, 120, 37)
    check_nearest(Engine("cupy"), queries, bank)
    check_nearest(Engine("cupy:0"), queries, bank, 3, np.arange(9) % 3, np.arange(120) % 3)
    check_mutual(Engine("cupy"), queries, bank)
    assert "decide" in cupy.card.launches


def test_the_kernels_are_compiled_once_from_one_text(cupy: SimpleNamespace) -> None:
    rows = np.ones((3, 4), np.float32)
    for _ in range(2):
        kernels.nearest(rows, rows, backend="cupy")
    ((code, options, backend),) = cupy.modules
    assert backend == "nvrtc"
    assert "#include" not in code  # CuPy keeps what it compiled by this text alone
    assert "first_nonfinite_row" in code
    assert not any("fast" in option for option in options)


@pytest.mark.parametrize(
    ("call", "code", "kind"),
    [
        ("compile", 35, errors.GpuUnavailableError),
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


def test_a_full_card(cupy: SimpleNamespace) -> None:
    rows = np.ones((3, 4), np.float32)
    kernels.nearest(rows, rows, backend="cupy")
    cupy.memory_full = True
    with pytest.raises(errors.GpuMemoryError, match="memory is full"):
        kernels.nearest(rows, rows, backend="cupy")
