from typing import Any, overload

import numpy as np
import numpy.typing as npt

_Floats = npt.NDArray[np.float32]
_Ids = npt.NDArray[np.int64]
_Axis = tuple[npt.NDArray[np.int32], _Floats, _Floats]

def num_threads() -> int: ...
def set_num_threads(n: int) -> None: ...
def limit_threads(n: int) -> int: ...
def isa_levels() -> list[str]: ...
def isa() -> str: ...
def set_isa(name: str) -> None: ...

class Basis:
    def __init__(self, centre: npt.NDArray[np.float64], scale: float, directions: _Floats, defect: float) -> None: ...
    @property
    def rank(self) -> int: ...

class ProjectedRows:
    def __init__(self, basis: Basis, rows: _Floats, index: _Ids | None) -> None: ...
    def take(self, ids: _Ids) -> ProjectedRows: ...

class LeafIndex:
    @overload
    def __init__(self, basis: Basis, rows: _Floats, index: _Ids | None, projected: ProjectedRows | None) -> None: ...
    @overload
    def __init__(self, basis: Basis, rows: int, arrays: dict[str, npt.NDArray[Any]]) -> None: ...
    def arrays(self) -> dict[str, npt.NDArray[Any]]: ...
    @property
    def leaves(self) -> int: ...
    @property
    def nbytes(self) -> int: ...

class LeafBuilder:
    HEAD_FLOATS: int
    def __init__(
        self, basis: Basis, rows: _Floats, index: _Ids | None, rows_mapped: bool, limit: int, heads: _Floats | None
    ) -> None: ...
    def shapes(self) -> list[tuple[str, np.dtype[Any], int]]: ...
    def fill(self, arrays: dict[str, npt.NDArray[Any]]) -> None: ...

_Counts = tuple[int, int, int, int, bool]

def nearest_brute(
    queries: _Floats,
    query_index: _Ids | None,
    query_group: _Ids | None,
    bank: _Floats,
    bank_index: _Ids | None,
    bank_group: _Ids | None,
    mapped: bool,
    k: int,
    floor: _Floats | None = None,
) -> tuple[_Ids, _Floats, _Counts]: ...
def nearest_pruned(
    queries: _Floats,
    query_index: _Ids | None,
    query_group: _Ids | None,
    projected: ProjectedRows,
    bank: _Floats,
    bank_index: _Ids | None,
    bank_group: _Ids | None,
    mapped: bool,
    basis: Basis,
    leaf_index: LeafIndex,
    k: int,
    hint: _Ids | None,
    floor: _Floats | None = None,
) -> tuple[_Ids, _Floats, _Counts]: ...
def nearest_bounds(
    queries: _Floats,
    query_index: _Ids | None,
    query_group: _Ids | None,
    projected: ProjectedRows,
    bank: _Floats,
    bank_index: _Ids | None,
    bank_group: _Ids | None,
    mapped: bool,
    basis: Basis,
    leaf_index: LeafIndex,
    hint: _Ids | None,
    floor: _Floats | None = None,
) -> tuple[_Ids, _Floats, _Floats, _Counts]: ...
def mutual_nearest_brute(
    a: _Floats, a_index: _Ids | None, b: _Floats, b_index: _Ids | None
) -> tuple[_Ids, _Floats, _Ids, _Floats, _Counts]: ...
def participation(rows: _Floats, index: _Ids | None, sample: int) -> float: ...
def first_nonfinite_row(rows: _Floats, index: _Ids | None) -> int: ...
def channel_spread(
    members: _Floats, rows: _Ids, starts: _Ids
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]: ...
def channel_add(rows: _Floats, slots: _Ids, sums: npt.NDArray[np.float64]) -> None: ...
def channel_distances(rows: _Floats, slots: _Ids, means: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]: ...
def describe(
    levels: list[tuple[_Floats, int, _Ids, _Ids, _Floats, _Axis, _Axis]],
    neighbourhood: int,
    grid_height: int,
    grid_width: int,
    out: _Floats,
) -> None: ...
def linear_map(rows: _Floats, mean: _Floats, matrix: _Floats) -> _Floats: ...
def winograd_tile(height: int, width: int, inputs: int, outputs: int) -> int: ...

class Convolution:
    def __init__(self, weight: _Floats, bias: _Floats, tile: int) -> None: ...
    def __call__(
        self, images: _Floats, pad_y: int, pad_x: int, other: _Floats | None, activation: int, threads: int, team: int
    ) -> _Floats: ...

def smooth(
    scores: npt.NDArray[np.float64],
    low: npt.NDArray[np.int32],
    high: npt.NDArray[np.int32],
    weights: npt.NDArray[np.float64],
    left: npt.NDArray[np.int32],
    right: npt.NDArray[np.int32],
    across: npt.NDArray[np.float64],
    height: int,
    width: int,
) -> _Floats: ...
