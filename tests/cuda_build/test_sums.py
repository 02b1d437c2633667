"""What filters assume of sums of products (docs/gpu.md, section 3): on the host executor, and on a GPU if there is."""

from __future__ import annotations

import cuda_host.build
import numpy as np
import pytest
from cuda_host.device import HostDevice

from inreach_fast.kernels import available_backends, is_gpu_name
from inreach_fast.kernels.gpu.device import Device, fill
from inreach_fast.kernels.gpu.frame import DeviceRows, FramedRows, Piece
from inreach_fast.kernels.gpu.routes import FORMATS, TILES, Bounds, Route
from inreach_fast.kernels.gpu.search import Search
from inreach_fast.kernels.gpu.search_state import Candidates, Counts

ROWS, BANK = 40, 150


@pytest.fixture(params=["cpu", pytest.param("gpu", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> Device:
    if request.param == "cpu":
        if cuda_host.build.compiler() is None:
            pytest.skip("NO C++ COMPILER: the CUDA kernels were not run on the CPU")
        return HostDevice(2)
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device: what a GPU's matrix instructions do was not measured")
    opening = pytest.importorskip("inreach_fast.kernels.gpu.devices.opening")
    kinds = [kind for kind in available_backends() if is_gpu_name(kind)]
    if not kinds:
        pytest.skip("neither inreach_fast._cuda nor CuPy: what a GPU's matrix instructions do was not measured")
    return Device(opening.open_gpu(kinds[0], 0), memory=opening.shared_memory(kinds[0], 0))


def _hard_rows(rng: np.random.Generator, count: int, depth: int, kind: str) -> np.ndarray:
    values = rng.normal(size=(count, depth))
    if kind == "magnitudes":
        values *= 10.0 ** rng.uniform(-3, 0, values.shape)
    elif kind == "cancelling":  # sums of terms around one that come to almost nothing
        values[:, 1::2] = -values[:, ::2] * (1.0 + 1e-3 * rng.normal(size=values[:, ::2].shape))
    elif kind == "subnormal":  # of fp16, times values around one
        values[:, ::3] *= 2.0**-20
    elif kind == "one sign":
        values = np.abs(values)
    return values.astype(np.float16).astype(np.float32)


@pytest.mark.parametrize("kind", ["normal", "magnitudes", "cancelling", "subnormal", "one sign"])
@pytest.mark.parametrize("depth", [32, 96, 1024])
@pytest.mark.parametrize("form", FORMATS)
def test_tensor_core_sums(device: Device, form: str, depth: int, kind: str) -> None:
    """|computed - exact| <= g * (sum of the terms' sizes), for every pair of every tile."""
    if device.compute_capability < FORMATS[form].compute_capability:
        pytest.skip(f"{form} needs compute capability {FORMATS[form].compute_capability}")
    rng = np.random.default_rng(depth)
    q, x = _hard_rows(rng, ROWS, depth, kind), _hard_rows(rng, BANK, depth, kind)
    if kind == "subnormal":  # where nothing larger stands beside them in the sum
        q[:, 1::3] = q[:, 2::3] = 0.0
        x = _hard_rows(rng, BANK, depth, "normal")
    if kind == "cancelling":
        x = np.repeat(np.abs(x[:, ::2]), 2, axis=1)
    if form == "bf16":
        q, x = ((a.view(np.uint32) & 0xFFFF0000).view(np.float32) for a in (q, x))
    for tile in TILES:
        computed = _products(device, Route(form, tile), q, x)
        exact = q.astype(np.float64) @ x.T.astype(np.float64)
        size = np.abs(q).astype(np.float64) @ np.abs(x).T.astype(np.float64)
        assert (np.abs(computed - exact) <= FORMATS[form].sum_error(depth) * size).all()


def _products(device: Device, route: Route, q: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Computed dot products: `low` with nothing but them in it, which doubles them and rounds nothing."""

    def framed(rows: np.ndarray) -> Piece:
        stored = {"f32": rows, "tf32": rows, "fp16": rows.astype(np.float16).view(np.uint16)}.get(route.format)
        if stored is None:
            stored = (rows.view(np.uint32) >> 16).astype(np.uint16)
        zero = device.upload(np.zeros(len(rows), np.float32))
        bounds = Bounds(0.0, 0.0, np.float32(1.0), np.float32(0.0))
        held = DeviceRows(device.upload(rows), None, 0, len(rows))
        return Piece(0, held, FramedRows(device.upload(stored), zero, zero, bounds))

    search = Search(device, route)
    candidates = Candidates(device, len(q) * len(x), Counts.zero(device))
    reach = device.empty(len(q), np.uint32)
    fill(device, reach, 0x7F800000)
    candidates.clear()
    search.filter("collect", framed(q), framed(x), reach, candidates=candidates)
    result = np.full((len(q), len(x)), np.nan)
    row, column, low = (device.download(a) for a in (candidates.query, candidates.row, candidates.low))
    result[row, column] = low.astype(np.float64) / -2.0
    assert not np.isnan(result).any()
    return result
