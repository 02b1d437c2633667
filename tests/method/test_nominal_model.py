from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest

from inreach_fast.errors import DataError, MixedSizesError
from inreach_fast.method.nominal_model import NominalModel


def model(**changes: Any) -> NominalModel:
    parts: dict[str, Any] = {
        "patches": np.arange(8, dtype=np.float32).reshape(4, 2),
        "image_index": np.array([0, 0, 2, 2]),
        "patch_index": np.array([1, 3, 0, 1]),
        "channel_seed_image": np.array([0, 0, 0, 2]),
        "channel_seed_patch": np.array([1, 3, 3, 1]),
    }
    return NominalModel(**{**parts, **changes})


def test_it_is_immutable_and_searchable() -> None:
    nominal = model()
    assert len(nominal) == 4
    assert nominal.n_images == 2
    assert nominal.counts_by_image(4).tolist() == [2, 0, 2, 0]
    with pytest.raises(AttributeError):
        nominal.patches = np.zeros((1, 2), np.float32)  # type: ignore[misc]
    with pytest.raises(ValueError, match="read-only"):
        nominal.patches[0, 0] = 1
    assert nominal.bank is nominal.bank
    assert nominal.bank.groups is not None
    assert nominal.bank.groups.tolist() == [0, 0, 2, 2]


def test_the_callers_array_stays_writable() -> None:
    rows = np.zeros((4, 2), np.float32)
    model(patches=rows)
    rows[0] = 1


def test_it_can_be_sent_to_another_process() -> None:
    nominal = model()
    assert len(nominal.bank) == 4
    assert np.array_equal(pickle.loads(pickle.dumps(nominal)).patches, nominal.patches)


def test_parts_that_do_not_fit() -> None:
    with pytest.raises(MixedSizesError, match="patch_index"):
        model(patch_index=np.arange(3))
    with pytest.raises(DataError, match="at least one"):
        model(patches=np.zeros((0, 2), np.float32))
