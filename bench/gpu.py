"""On a card: searches against torch's own, and a frame's way from image to score (``python -m bench --device cuda``).

Peers run in the same process on the same card, interleaved; every contestant waits for the card before it is done.
torch.cdist of 3136 queries with millions of rows would be tens of gigabytes, so that it and the plain product go
through the bank in pieces, as one would write it; torch's TF32 is off for cdist, as ours is exact.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from inreach_fast import kernels

from . import records, timing
from .workload import Workload

QUERIES, DIM = 3136, 1024
_PIECE = 1 << 17
_FRAMES = 300


def why_not() -> str | None:
    """Why nothing can be measured here, or None."""
    import torch

    if not torch.cuda.is_available():
        return "no CUDA device (or a torch without CUDA)"
    if not {"cuda", "cupy"} & set(kernels.available_backends()):
        return "neither inreach_fast._cuda nor CuPy is installed"
    return None


def run(work: Workload, *, quick: bool) -> list[records.Case]:
    """All cases; `why_not` has been asked before."""
    import torch

    torch.backends.cuda.matmul.allow_tf32 = False
    rounds = 3 if quick else 9
    cases = [_mutual(rounds)]
    for rows in (300_000,) if quick else (300_000, 3_000_000):
        cases.append(_nearest(rows, rounds))
    cases += _frames(work, _FRAMES // 10 if quick else _FRAMES)
    return cases


def _data(rows: int, seed: int) -> Any:
    """Float32 rows on the card: 40 directions hold most of the variance, as in descriptors of real parts."""
    import torch

    generator = torch.Generator("cuda").manual_seed(7)
    basis = torch.randn((40, DIM), device="cuda", generator=generator) / DIM**0.5
    weight = torch.logspace(0, -1.5, 40, device="cuda")
    generator.manual_seed(seed)
    out = torch.empty((rows, DIM), device="cuda")
    for first in range(0, rows, _PIECE):
        stop = min(first + _PIECE, rows)
        inner = torch.randn((stop - first, 40), device="cuda", generator=generator) * weight
        noise = torch.randn((stop - first, DIM), device="cuda", generator=generator)
        out[first:stop] = inner @ basis + 0.1 / DIM**0.5 * noise
    return out


def _waited(work: Callable[[], Any]) -> Callable[[], None]:
    import torch

    def run_and_wait() -> None:
        work()
        torch.cuda.synchronize()

    return run_and_wait


def _cdist(queries: Any, bank: Any) -> tuple[Any, Any]:
    """Distance and row of the nearest, float32, piece by piece."""
    import torch

    best = torch.full((len(queries),), torch.inf, device="cuda")
    where = torch.zeros(len(queries), dtype=torch.int64, device="cuda")
    for first in range(0, len(bank), _PIECE):
        value, index = torch.cdist(queries, bank[first : first + _PIECE]).min(dim=1)
        closer = value < best
        best = torch.where(closer, value, best)
        where = torch.where(closer, index + first, where)
    return best, where


def _product(queries: Any, bank: Any) -> None:
    """The matrix product alone: no minimum, nothing kept."""
    for first in range(0, len(bank), _PIECE):
        _ = queries @ bank[first : first + _PIECE].T


def _mutual(rounds: int) -> records.Case:
    import torch

    a, b = _data(QUERIES, 1), _data(QUERIES, 2)
    halves = a.bfloat16(), b.bfloat16()

    def both_ways() -> None:
        distance = torch.cdist(a, b)
        distance.min(dim=1)
        distance.min(dim=0)

    found = kernels.mutual_nearest(a, b)
    seconds = timing.race(
        {
            timing.OURS: _waited(lambda: kernels.mutual_nearest(a, b)),
            "torch.cdist and min": _waited(both_ways),
            "torch bf16 product": _waited(lambda: halves[0] @ halves[1].T),
        },
        rounds=rounds,
    )
    return records.timed_case(
        f"mutual_nearest {QUERIES} x {QUERIES} x {DIM}",
        seconds,
        data="synthetic, structured",
        goals={"torch.cdist and min": 3.0, "torch bf16 product": 1.0},
        checks={"pairs": len(found.pairs()[0]), "card": torch.cuda.get_device_name()},
    )


def _nearest(rows: int, rounds: int) -> records.Case:
    import torch

    queries, held = _data(QUERIES, 1), _data(rows, 2)
    bank = kernels.Bank(held)
    halves = queries.bfloat16(), held.bfloat16()
    found = kernels.nearest(queries, bank)
    other = _cdist(queries, held)[1]
    seconds = timing.race(
        {
            timing.OURS: _waited(lambda: kernels.nearest(queries, bank)),
            "torch.cdist and min": _waited(lambda: _cdist(queries, held)),
            "torch bf16 product": _waited(lambda: _product(*halves)),
        },
        rounds=rounds,
    )
    return records.timed_case(
        f"nearest {QUERIES} x {rows:,} x {DIM}",
        seconds,
        data="synthetic, structured",
        goals={"torch.cdist and min": 3.0, "torch bf16 product": 1.0},
        checks={
            "rows that cdist finds as well": float((found.index == other).float().mean()),
            "counts": vars(found.counts) if found.counts else None,
            "card": torch.cuda.get_device_name(),
        },
    )


def _frames(work: Workload, frames: int) -> list[records.Case]:
    """Latency of `predict` at batch 1, and of a frame in `predict_stream`."""
    from inreach_fast import InReaCh
    from inreach_fast.backbones import backbone_from_spec
    from inreach_fast.nominal_model import NominalModel

    rng = np.random.default_rng(0)
    side = work.image_size
    base = rng.integers(0, 255, (side, side, 3))
    images = [np.clip(base + rng.integers(-20, 20, base.shape), 0, 255).astype(np.uint8) for _ in range(16)]
    backbone = backbone_from_spec(work.backbone.spec, device="cuda")
    model = InReaCh(backbone=backbone, device="cuda", image_size=side).fit(images)
    # A bank of the size that is spoken of: the fit's own patches, again and again, slightly moved.
    patches, wanted = model.nominal_.patches, 300_000
    rows = patches[np.arange(wanted) % len(patches)] + rng.normal(0, 1e-3, (wanted, 1)).astype(np.float32)
    zeros = np.zeros(wanted, np.int64)
    model.nominal_ = NominalModel(rows.astype(np.float32), zeros, zeros, zeros, zeros)
    model._scorer = None
    for image in images[:8]:
        model.predict(image)
    alone = []
    for i in range(frames):
        begun = time.perf_counter()
        model.predict(images[i % len(images)])
        alone.append(1e3 * (time.perf_counter() - begun))
    begun = time.perf_counter()
    count = sum(1 for _ in model.predict_stream(images[i % len(images)] for i in range(frames)))
    in_stream = 1e3 * (time.perf_counter() - begun) / count
    median, p99 = float(np.median(alone)), float(np.quantile(alone, 0.99))
    name = f"predict, {side} px, {wanted:,} patches"
    return [
        records.value_case(
            name, {"median": median, "p99": p99}, data="synthetic", unit="ms", limits={"median": 5.0}, frames=frames
        ),
        records.value_case(
            f"{name}: p99 over the median", {"ratio": p99 / median}, data="synthetic", unit="x", limits={"ratio": 1.5}
        ),
        records.value_case(
            f"{name}: a frame in predict_stream", {"inreach_fast": in_stream}, data="synthetic", unit="ms",
            limits={"inreach_fast": 2.0}, frames=frames,
        ),
    ]  # fmt: skip
