"""`Convolution3x3`: near a convolution in float64, with the same bits on every instruction set and for all threads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inreach_fast.errors import BackendError, MixedSizesError, ParameterError
from inreach_fast.kernels import convolution
from inreach_fast.kernels.convolution import Convolution3x3, winograd_tile

_core = pytest.importorskip("inreach_fast._core", exc_type=ImportError)
ACTIVATIONS = {"": lambda y: y, "relu": lambda y: np.maximum(y, 0), "relu6": lambda y: np.clip(y, 0, 6)}


@pytest.fixture(autouse=True)
def isa() -> Iterator[None]:
    """Puts the instruction set back."""
    before = _core.isa()
    yield
    _core.set_isa(before)


def normal(rng: np.random.Generator, *shape: int) -> Any:
    return rng.standard_normal(shape).astype(np.float32)


def plain(x: Any, weight: Any, bias: Any, padding: tuple[int, int] = (1, 1)) -> Any:
    """In float64, one position of the weights after the other."""
    padded = np.pad(x.astype(np.float64), ((0, 0), (padding[0],) * 2, (padding[1],) * 2, (0, 0)))
    height, width = padded.shape[1] - 2, padded.shape[2] - 2
    out = np.zeros((len(x), height, width, len(weight))) + bias
    for i in range(3):
        for j in range(3):
            out += padded[:, i : i + height, j : j + width] @ weight[:, :, i, j].T.astype(np.float64)
    return out


@settings(max_examples=60, deadline=None)
@given(
    count=st.sampled_from([0, 1, 3]),
    height=st.integers(1, 19),
    width=st.integers(1, 19),
    inputs=st.sampled_from([1, 3, 15, 16, 17, 40]),
    outputs=st.sampled_from([1, 8, 16, 31, 33, 70, 130]),
    padding=st.sampled_from([(1, 1), (1, 1), (0, 1), (2, 3)]),
    tile=st.sampled_from([2, 4]),
    activation=st.sampled_from(list(ACTIVATIONS)),
    summed=st.booleans(),
    power=st.sampled_from([-30, 0, 30]),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_shape(
    count: int,
    height: int,
    width: int,
    inputs: int,
    outputs: int,
    padding: tuple[int, int],
    tile: int,
    activation: str,
    summed: bool,
    power: int,
    seed: int,
) -> None:
    height, width = max(height, 3 - 2 * padding[0]), max(width, 3 - 2 * padding[1])
    rng = np.random.default_rng(seed)
    scale = np.float32(10.0**power)
    x, weight, bias = normal(rng, count, height, width, inputs) * scale, normal(rng, outputs, inputs, 3, 3), None
    bias = normal(rng, outputs) * scale
    wanted = plain(x, weight, bias, padding)
    other = normal(rng, *wanted.shape) * scale if summed else None
    wanted = ACTIVATIONS[activation](wanted if other is None else wanted + other)
    convolve = Convolution3x3(weight, bias, tile=tile)
    found = {}
    for isa in _core.isa_levels():
        _core.set_isa(isa)
        for threads in (1, 2, 5):
            found[isa, threads] = convolve(x, padding=padding, other=other, activation=activation, threads=threads)
    first = next(iter(found.values()))
    assert first.dtype == np.float32
    assert first.shape == wanted.shape
    assert {y.tobytes() for y in found.values()} == {first.tobytes()}
    # A sum's error is some rounding errors of its greatest terms, whichever the tile.
    terms = np.abs(weight).sum((1, 2, 3)) * np.abs(x).max(initial=0) + np.abs(bias)
    assert (np.abs(first - wanted) <= 4e-6 * terms + 1e-6 * np.abs(wanted)).all()
    for i in range(count):  # alone
        alone = None if other is None else other[i : i + 1]
        assert (
            convolve(x[i : i + 1], padding=padding, other=alone, activation=activation).tobytes() == first[i].tobytes()
        )


@pytest.mark.parametrize("tile", [2, 4])
def test_a_weight_at_one_place_moves_the_image(tile: int) -> None:
    rng = np.random.default_rng(0)
    x = normal(rng, 1, 7, 9, 5)
    for i in range(3):
        for j in range(3):
            weight = np.zeros((5, 5, 3, 3), np.float32)
            weight[range(5), range(5), i, j] = 1
            moved = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))[:, i : i + 7, j : j + 9]
            out = Convolution3x3(weight, np.zeros(5, np.float32), tile=tile)(x)
            np.testing.assert_allclose(out, moved, atol=2e-5)


@pytest.mark.parametrize("tile", [2, 4])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_stays_seen_and_near(tile: int, bad: float) -> None:
    rng = np.random.default_rng(1)
    x, weight = normal(rng, 1, 20, 20, 16), normal(rng, 16, 16, 3, 3)
    convolve = Convolution3x3(weight, np.zeros(16, np.float32), tile=tile)
    clean = convolve(x)
    x[0, 9, 10, 3] = bad
    for isa in _core.isa_levels():
        _core.set_isa(isa)
        for activation in ("", "relu", "relu6"):
            out = convolve(x, activation=activation)
            # relu makes 0 of minus infinity, as it should.
            touched = ~np.isfinite(convolve(x))
            assert touched[0, 8:11, 9:12].all()
            far = np.ones((20, 20), bool)
            far[9 - 4 : 9 + 5, 10 - 4 : 10 + 5] = False
            assert (
                out[0, far].tobytes()
                == np.maximum(clean, 0 if activation else -np.inf)[0, far]
                .clip(None, 6 if activation == "relu6" else None)
                .tobytes()
            )
        if np.isnan(bad):
            assert np.isnan(convolve(x, activation="relu6")[0, 8:11, 9:12]).all()


def test_other_layouts_and_dtypes() -> None:
    rng = np.random.default_rng(2)
    x, weight, bias = normal(rng, 2, 12, 10, 17), normal(rng, 18, 17, 3, 3), normal(rng, 18)
    convolve = Convolution3x3(weight, bias)
    wanted = convolve(x)
    wide = np.zeros((2, 12, 20, 17), np.float32)
    wide[:, :, ::2] = x
    for same in (
        np.asfortranarray(x),
        wide[:, :, ::2],
        np.ascontiguousarray(x.transpose(3, 0, 1, 2)).transpose(1, 2, 3, 0),
    ):
        assert convolve(same).tobytes() == wanted.tobytes()
    transposed = np.ascontiguousarray(weight.transpose(2, 3, 1, 0)).transpose(3, 2, 0, 1)
    assert Convolution3x3(transposed, bias)(x).tobytes() == wanted.tobytes()
    assert convolve(np.round(x).astype(np.int8)).tobytes() == convolve(np.round(x)).tobytes()


def test_bad_arguments() -> None:
    zeros = lambda *shape: np.zeros(shape, np.float32)  # noqa: E731
    with pytest.raises(ParameterError, match="weight: expected an array of 4 dimensions"):
        Convolution3x3(zeros(3, 3), zeros(3))
    with pytest.raises(ParameterError, match="weight: converting float64 to float32 would change values"):
        Convolution3x3(np.full((1, 1, 3, 3), 0.1), zeros(1))
    for shape in ((4, 2, 3, 5), (0, 2, 3, 3), (4, 0, 3, 3)):
        with pytest.raises(MixedSizesError, match=r"weight: expected \(outputs, inputs, 3, 3\), none of them 0, got"):
            Convolution3x3(zeros(*shape), zeros(shape[0]))
    with pytest.raises(MixedSizesError, match=r"bias: expected \(4,\) for 4 outputs, got \(5,\)"):
        Convolution3x3(zeros(4, 2, 3, 3), zeros(5))
    with pytest.raises(ParameterError, match="tile: expected 2 or 4, got 3"):
        Convolution3x3(zeros(4, 2, 3, 3), zeros(4), tile=3)
    convolve = Convolution3x3(zeros(4, 2, 3, 3), zeros(4))
    with pytest.raises(ParameterError, match="images: expected an array of 4 dimensions"):
        convolve(zeros(5, 5, 2))
    with pytest.raises(ParameterError, match="images: expected float32"):
        convolve(np.zeros((1, 5, 5, 2), complex))
    with pytest.raises(MixedSizesError, match="images: expected 2 channels in the last dimension"):
        convolve(zeros(1, 5, 5, 3))
    for shape, padding in (((1, 2, 5, 2), (0, 0)), ((1, 5, 0, 2), (1, 3))):
        with pytest.raises(MixedSizesError, match="images: smaller than the 3x3 weights"):
            convolve(zeros(*shape), padding=padding)
    for padding in ((-1, 1), (1,), (1, 1.5), 1, (1, 5000)):
        with pytest.raises(ParameterError, match="padding: expected two whole numbers from 0 to 1024, got"):
            convolve(zeros(1, 5, 5, 2), padding=padding)  # type: ignore[arg-type]
    with pytest.raises(MixedSizesError, match=r"other: expected the result's shape \(1, 5, 5, 4\), got \(1, 5, 5, 1\)"):
        convolve(zeros(1, 5, 5, 2), other=zeros(1, 5, 5, 1))
    with pytest.raises(ParameterError, match="activation: expected one of"):
        convolve(zeros(1, 5, 5, 2), activation="gelu")
    with pytest.raises(ParameterError, match="threads: expected a whole number from 1 to 1024, got 0"):
        convolve(zeros(1, 5, 5, 2), threads=0)


def test_where_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    _core.set_isa("auto")
    if _core.isa() == "scalar":
        pytest.skip("this processor has no vector instructions")
    assert winograd_tile(56, 56, 128, 128) == 4
    assert winograd_tile(14, 14, 512, 512) == 2  # fewer tiles than a block of registers has rows
    assert winograd_tile(56, 56, 15, 128) == winograd_tile(56, 56, 128, 15) == 0
    assert winograd_tile(3, 3, 128, 128) == winograd_tile(0, 56, 128, 128) == 0
    _core.set_isa("scalar")
    assert winograd_tile(56, 56, 128, 128) == 0
    monkeypatch.setattr(convolution, "_core", None)
    assert winograd_tile(56, 56, 128, 128) == 0
    with pytest.raises(BackendError, match=r"Convolution3x3: needs inreach_fast._core, which is missing; install"):
        Convolution3x3(np.zeros((1, 1, 3, 3), np.float32), np.zeros(1, np.float32))
