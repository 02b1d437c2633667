"""Patch descriptors computed from a backbone's levels without unfolding them (ALGORITHM section 3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..array_types import FloatArray
from ..errors import DataError, ParameterError
from .describe_plan import Level, Plan, axis_resample, level_taps
from .gpu.arrays import Call, call_for, to_gpu
from .gpu.devices.interop import Caller, lives_on_gpu
from .registry import backends

_MAX_SIZE = 2**31 - 1


def describe(
    levels: Sequence[Any],
    *,
    grid: tuple[int, int],
    dim: int = 1024,
    neighbourhood: int = 3,
    backend: str = "auto",
    out: FloatArray | None = None,
) -> Any:
    """One descriptor for each patch of a grid, from a backbone's levels (ALGORITHM section 3).

    For each level: the ``neighbourhood`` x ``neighbourhood`` surroundings of every position (zero beyond
    the border), in (channel, ky, kx) order, adaptively average-pooled to ``dim`` values and bilinearly
    resampled to ``grid`` (align_corners=False); the levels' vectors are concatenated and average-pooled to
    ``dim``. Together this is one sparse linear map, composed once for each network.

    Every backend, instruction set, number of threads, memory layout and batch gives the same bits (only the
    sign and payload of a NaN may differ). NaN and infinity are not rejected: they appear in the patches that use them.

    Args:
        levels: arrays of shape (C, h, w), or (B, C, h, w) with the same B for all; float32; NumPy arrays or torch
            tensors. Any strides: channels_last and contiguous tensors are both read in place.
        grid: (h, w) of the result, usually the first level's.
        dim: values of a descriptor.
        neighbourhood: odd; 1 switches local aggregation off.
        backend: "auto" or one of `available_backends`. Tensors on a device for which it has no kernels are described
            on the CPU, and the result goes back to that device.
        out: float32 array of the result's shape to write to, the values of a row contiguous; its rows may
            be further apart than ``dim`` (``buffer[:, :1024]``). It must not overlap the levels.

    Returns:
        float32 (P, dim), or (B, P, dim), C-order, P = h * w; patch (y, x) is row y * w + x. A NumPy array,
        except that tensors on a device other than the CPU give a tensor there. With ``out``: that array.

    Raises:
        ParameterError: ``grid``, ``dim``, ``neighbourhood`` or ``out`` is not as above.
        DataError: a level is not float32, has a wrong number of dimensions, is empty, or disagrees with the
            others in its batch or device; the message names it.
        BackendError: the backend is unknown or not usable here.
    """
    try:
        height, width = grid
    except (TypeError, ValueError):
        raise ParameterError(f"grid: expected (height, width), got {grid!r}") from None
    grid = _check_whole(height, "grid[0]"), _check_whole(width, "grid[1]")
    dim, neighbourhood = _check_whole(dim, "dim"), _check_whole(neighbourhood, "neighbourhood")
    if neighbourhood % 2 == 0:
        raise ParameterError(f"neighbourhood: expected an odd number (1, 3, 5, ...), got {neighbourhood}")
    device = _check_levels(levels)
    call = None
    if device is not None:
        if out is not None:
            raise ParameterError(f"out: a NumPy array cannot take results from {device}; leave it out")
        call = call_for(backend, levels[0])
        if call is None and not hasattr(levels[0], "detach"):
            raise DataError(
                f"levels: on {device}, where only the GPU's own backends work; choose one of them, or move the levels "
                "to the CPU"
            )
    batched = len(levels[0].shape) == 4
    arrays = [x if batched else x[None] for x in levels]
    plan = make_plan(tuple(tuple(int(n) for n in x.shape[1:]) for x in arrays), grid, dim, neighbourhood)
    shape = (len(arrays[0]), grid[0] * grid[1], dim)
    if isinstance(call, Call):
        result = call.describe(arrays, plan)
    else:
        if out is None:
            result = np.empty(shape, dtype=np.float32)
        else:
            _check_out(out, shape if batched else shape[1:])
            result = out if batched else out[None]
        if result.size:
            backends[backend].describe([_as_array(x, f"levels[{i}]", call) for i, x in enumerate(arrays)], plan, result)
        if call is not None:
            result = to_gpu(call, result)
        elif device is not None:
            result = levels[0].new_tensor(result)
    if out is not None:
        return out
    return result if batched else result[0]


def make_plan(shapes: tuple[tuple[int, ...], ...], grid: tuple[int, int], dim: int, neighbourhood: int) -> Plan:
    """What a backend executes for levels of these (C, h, w)."""
    taps = level_taps(tuple(c for c, _, _ in shapes), dim, neighbourhood)
    levels = (
        Level(part, h, w, axis_resample(h, grid[0]), axis_resample(w, grid[1]))
        for part, (_, h, w) in zip(taps, shapes, strict=True)
    )
    return Plan(grid, dim, neighbourhood, tuple(levels))


def _check_whole(value: Any, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not 1 <= value <= _MAX_SIZE:
        raise ParameterError(f"{name}: expected a whole number of at least 1, got {value!r}")
    return int(value)


def _check_levels(levels: Any) -> str | None:
    """The device of the levels where it is not the CPU, else None; checks all that must be equal."""
    if hasattr(levels, "shape") or not isinstance(levels, Sequence):
        raise ParameterError(f"levels: expected a list with one array for each level, got {type(levels).__name__}")
    if not levels:
        raise ParameterError("levels: expected at least one level, got none")
    batch = tuple(getattr(levels[0], "shape", ()))[:-3]
    for i, level in enumerate(levels):
        if not hasattr(level, "__array__") and not hasattr(level, "__dlpack__"):
            raise DataError(f"levels[{i}]: expected a float32 array or tensor, got {type(level).__name__}")
        if str(level.dtype) not in ("float32", "torch.float32"):
            raise DataError(f"levels[{i}]: expected float32, got {level.dtype}; convert it first")
        shape = tuple(level.shape)
        if len(shape) not in (3, 4):
            raise DataError(f"levels[{i}]: expected the shape (C, h, w) or (B, C, h, w), got {shape}")
        if 0 in shape[-3:]:
            raise DataError(f"levels[{i}]: is empty, its shape is {shape}")
        if shape[:-3] != batch:
            own, first = shape[:-3] or "(none)", batch or "(none)"
            raise DataError(f"levels[{i}]: its batch {own} is not that of levels[0], {first}")
    devices = {_device(level) for level in levels}
    if len(devices) > 1:
        raise DataError(f"levels: are on several devices, {', '.join(sorted(devices))}; move them to one")
    device = devices.pop()
    return None if device == "cpu" else device


def _device(level: Any) -> str:
    if hasattr(level, "detach"):
        return str(level.device)
    return "a GPU" if lives_on_gpu(level) else "cpu"


def _as_array(level: Any, name: str, caller: Caller | None) -> FloatArray:
    """A level in the CPU's memory with strides of whole floats: a view, wherever it has them."""
    if caller is not None:
        array = caller.library.to_host(caller.library.adopt(level), slice(None))
    elif hasattr(level, "detach"):
        array = level.detach().resolve_neg().cpu().numpy()  # NumPy refuses tensors that record gradients
    else:
        array = np.asarray(level) if hasattr(level, "__array__") else np.from_dlpack(level)
    if array.dtype != np.float32:
        raise DataError(f"{name}: expected float32, got {array.dtype}; convert it first")
    whole = array.flags.aligned and all(stride % array.itemsize == 0 for stride in array.strides)
    return np.asarray(array if whole else np.ascontiguousarray(array), dtype=np.float32)


def _check_out(out: Any, shape: tuple[int, ...]) -> None:
    if not isinstance(out, np.ndarray) or out.dtype != np.float32 or out.shape != shape:
        what = f"{out.dtype} {out.shape}" if isinstance(out, np.ndarray) else type(out).__name__
        raise ParameterError(f"out: expected a float32 array of shape {shape}, got {what}")
    row = out.strides[-2] if len(out) else 0
    side_by_side = shape[-1] == 1 or out.strides[-1] == out.itemsize
    apart = shape[-2] == 1 or row >= shape[-1] * out.itemsize
    whole = out.flags.aligned and all(stride % out.itemsize == 0 for stride in out.strides)
    if not (out.flags.writeable and side_by_side and apart and whole):
        raise ParameterError(
            f"out: must be writeable, with contiguous rows that do not overlap; got strides {out.strides}"
        )
