"""The test-only backend `cuda_host`: the GPU engine over the host executor, in the contract suite like any other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from unittest import mock

from inreach_fast.kernels import Bank, registry
from inreach_fast.kernels.gpu.backend import GpuBackend, Options
from inreach_fast.kernels.gpu.frame import Directions
from inreach_fast.kernels.gpu.routes import Route
from inreach_fast.kernels.gpu.search import Search

from .device import HostDevice

NAME = "cuda_host"


@dataclass(frozen=True)
class Case:
    """One way through the kernels: which filter, in which order threads run, in how many pieces a bank comes."""

    name: str
    options: Options
    order: int
    pieces: int = 1


class _InPieces(GpuBackend):
    """A GPU that holds a part of any bank, however small."""

    pieces = 1

    def _rows_at_once(self, bank: Bank, search: Search, directions: Directions | None) -> int:
        return -(-len(bank) // self.pieces)


def _case(name: str, form: str, tile: int, order: int, *, pieces: int = 1, **options: object) -> Case:
    route = Route(form, tile)
    # Leading directions that do not pay cost a list that they fill before they are given up: a short one.
    capacity = 1 << (12 if options.get("heads") else 14)
    chosen = {"heads": False, "head_route": route, "capacity": capacity, **options}
    return Case(name, Options(route=route, **chosen), order, pieces)  # type: ignore[arg-type]


# Every filter kernel, with leading directions and without, with a list that overflows, with a bank that does not fit.
CASES = [
    _case("f32-128", "f32", 128, 0),
    _case("f32-64-overflow", "f32", 64, 1, capacity=300),
    _case("fp16-128", "fp16", 128, 2),
    _case("fp16-64-streamed", "fp16", 64, 3, pieces=4, memory_limit=40_000),
    _case("bf16-128-overflow", "bf16", 128, 4, capacity=1000),
    _case("bf16-64", "bf16", 64, 5),
    _case("tf32-128-streamed", "tf32", 128, 12, pieces=3, memory_limit=50_000),
    _case("tf32-64-overflow", "tf32", 64, 13, capacity=400),
    _case("heads-f32-128", "f32", 128, 6, heads=True),
    _case("heads-f32-64-streamed", "f32", 64, 7, heads=True, pieces=5, memory_limit=50_000),
    _case("heads-fp16-128", "fp16", 128, 8, heads=True),
    _case("heads-fp16-64-overflow", "fp16", 64, 9, heads=True, capacity=500),
    _case("heads-bf16-128", "bf16", 128, 10, heads=True),
    _case("heads-bf16-64", "bf16", 64, 11, heads=True),
    _case("heads-tf32-128", "tf32", 128, 14, heads=True),
    _case("heads-tf32-64", "tf32", 64, 15, heads=True),
]
CASES_OF = {
    "every": CASES,
    # Each format, with leading directions and without.
    "filters": [
        case
        for case in CASES
        if case.name
        in (
            *("f32-64-overflow", "fp16-64-streamed", "bf16-128-overflow", "tf32-64-overflow"),
            *("heads-f32-64-streamed", "heads-fp16-128", "heads-bf16-64", "heads-tf32-128"),
        )
    ],
    # For what depends on none of it: each order of threads, a bank in pieces, an overflow, leading directions.
    "few": [case for case in CASES if case.name in ("f32-128", "f32-64-overflow", "fp16-64-streamed", "heads-bf16-64")],
    "one": CASES[:1],
    "none": [],
}


@contextmanager
def registered(case: Case = CASES[0], *, races: bool = False) -> Iterator[GpuBackend]:
    """`backend="cuda_host"` works inside, by this route; with ``races``, one that a kernel has is an error."""
    backend = _InPieces(NAME, lambda: HostDevice(case.order, races=races), case.options)
    backend.pieces = case.pieces
    with mock.patch.dict(registry.backends, {NAME: backend}):
        yield backend
