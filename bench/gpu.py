"""On a GPU: searches against torch's own, and whole images (``python -m bench --device cuda``).

Peers run interleaved in the same process on the same GPU; every contestant waits for the GPU at its end. The result of
torch.cdist for 3136 queries and millions of rows would take tens of gigabytes, so cdist and the plain product go
through the bank in pieces, as a user would write it. torch's TF32 is off for cdist, since our search is exact.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from inreach_fast import kernels

from . import exact, gpu_model, records, timing
from .gpu_machine import Gpu, why_not
from .workload import Workload

__all__ = ["run", "why_not"]

QUERIES, DIM = 3136, 1024
BANKS = (300_000, 3_000_000)
# The goals for an H200.
GOALS = {"torch.cdist and min": 3.0, "torch bf16 product": 1.0}
_PIECE = 1 << 17


def run(
    work: Workload,
    *,
    quick: bool,
    gpu: Gpu | None = None,
    queries: int = QUERIES,
    banks: tuple[int, ...] | None = None,
    networks: tuple[str, ...] = gpu_model.NETWORKS,
) -> list[records.Case]:
    """All cases; call `why_not` first."""
    import torch

    gpu = gpu or Gpu()
    torch.backends.cuda.matmul.allow_tf32 = False
    rounds = 3 if quick else 9
    banks = banks or (BANKS[:1] if quick else BANKS)
    cases = [_mutual(gpu, queries, rounds)]
    for rows in banks:
        bank = _synthetic(gpu, rows, 2)
        cases.append(_nearest(gpu, _synthetic(gpu, queries, 1), bank, rounds, "synthetic, structured"))
        del bank
    for name in networks:
        cases += gpu_model.run(work, name, gpu, patches=banks[0], quick=quick, nearest=_nearest)
    return cases


def _synthetic(gpu: Gpu, rows: int, seed: int) -> Any:
    """Float32 rows on the GPU: 40 directions hold most of the variance, as in descriptors of real parts."""
    import torch

    generator = torch.Generator(gpu.device).manual_seed(7)
    basis = torch.randn((40, DIM), device=gpu.device, generator=generator) / DIM**0.5
    weight = torch.logspace(0, -1.5, 40, device=gpu.device)
    generator.manual_seed(seed)
    out = torch.empty((rows, DIM), device=gpu.device)
    for first in range(0, rows, _PIECE):
        stop = min(first + _PIECE, rows)
        inner = torch.randn((stop - first, 40), device=gpu.device, generator=generator) * weight
        noise = torch.randn((stop - first, DIM), device=gpu.device, generator=generator)
        out[first:stop] = inner @ basis + 0.1 / DIM**0.5 * noise
    return out


def _cdist(queries: Any, bank: Any) -> tuple[Any, Any]:
    """Distance and row of the nearest neighbour, float32, in pieces."""
    import torch

    best = torch.full((len(queries),), torch.inf, device=queries.device)
    where = torch.zeros(len(queries), dtype=torch.int64, device=queries.device)
    for first in range(0, len(bank), _PIECE):
        value, index = torch.cdist(queries, bank[first : first + _PIECE]).min(dim=1)
        closer = value < best
        best = torch.where(closer, value, best)
        where = torch.where(closer, index + first, where)
    return best, where


def _product(queries: Any, bank: Any) -> None:
    """The matrix product alone, without the minimum."""
    for first in range(0, len(bank), _PIECE):
        _ = queries @ bank[first : first + _PIECE].T


def _mutual(gpu: Gpu, queries: int, rounds: int) -> records.Case:
    import torch

    a, b = _synthetic(gpu, queries, 1), _synthetic(gpu, queries, 2)
    halves = a.bfloat16(), b.bfloat16()

    def both_ways() -> None:
        distance = torch.cdist(a, b)
        distance.min(dim=1)
        distance.min(dim=0)

    found = kernels.mutual_nearest(a, b)
    seconds = timing.race(
        {
            timing.OURS: gpu.waited(lambda: kernels.mutual_nearest(a, b)),
            "torch.cdist and min": gpu.waited(both_ways),
            "torch bf16 product": gpu.waited(lambda: halves[0] @ halves[1].T),
        },
        rounds=rounds,
    )
    return records.timed_case(
        f"mutual_nearest {queries} x {queries} x {DIM}",
        seconds,
        data="synthetic, structured",
        goals=GOALS,
        checks={"pairs": len(found.pairs()[0]), **gpu.facts()},
    )


def _nearest(gpu: Gpu, queries: Any, rows: Any, rounds: int, data: str) -> records.Case:
    bank = kernels.Bank(rows)
    halves = queries.bfloat16(), rows.bfloat16()
    found = kernels.nearest(queries, bank)
    other = _cdist(queries, rows)[1].cpu()
    seconds = timing.race(
        {
            timing.OURS: gpu.waited(lambda: kernels.nearest(queries, bank)),
            "torch.cdist and min": gpu.waited(lambda: _cdist(queries, rows)),
            "torch bf16 product": gpu.waited(lambda: _product(*halves)),
        },
        rounds=rounds,
    )
    same = (_on_cpu(found.index) == _on_cpu(other)).mean()
    checks: dict[str, Any] = {"rows that cdist finds as well": f"{same:.3%}"}
    if len(rows) <= BANKS[0]:  # more would take gigabytes of float64
        answers = _on_cpu(found.index), _on_cpu(found.sq_distance)
        checks |= exact.check(_on_cpu(queries), _on_cpu(rows), *answers, len(rows))
    return records.timed_case(
        f"nearest {len(queries)} x {len(rows):,} x {queries.shape[1]}",
        seconds,
        data=data,
        goals=GOALS,
        checks={**checks, "counts": None if found.counts is None else vars(found.counts), **gpu.facts()},
    )


def _on_cpu(array: Any) -> Any:
    return np.asarray(array.cpu() if hasattr(array, "cpu") else array)
