from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from descriptor_sets import shared_patches

from inreach_fast import InReaCh
from inreach_fast.errors import ModelCorruptError
from inreach_fast.kernels import available_backends
from inreach_fast.storage import model_file

pytestmark = pytest.mark.skipif("native" not in available_backends(), reason="only the compiled engine has an index")

X = shared_patches(12, 100, 40, spread=0.3)


@pytest.fixture(scope="module")
def model() -> InReaCh:
    return InReaCh("channels", image_size=10, assoc_depth=3, threshold_images=4).fit_descriptors(X, (10, 10))


def never(*_: Any, **__: Any) -> Any:
    raise AssertionError("rows were read, or an index was built")


def test_a_loaded_model_builds_nothing_and_reads_no_rows_to_begin(
    model: InReaCh, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert model.nominal_.index_arrays
    model.save(tmp_path / "m")
    want = model.score_descriptors(X[0])
    from inreach_fast.kernels import bank
    from inreach_fast.kernels.cpu import native

    monkeypatch.setattr(native, "sample_rows", never)
    monkeypatch.setattr(bank, "check_finite", never)
    loaded = InReaCh.load(tmp_path / "m", verify=False)
    assert loaded.nominal_.bank.basis is not None
    monkeypatch.undo()
    monkeypatch.setattr(native, "sample_rows", never)
    got = loaded.score_descriptors(X[0])
    assert got.anomaly_map.tobytes() == want.anomaly_map.tobytes()
    assert np.array_equal(got.nearest, want.nearest)
    loaded.save(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "m").read_bytes()


def test_models_without_an_index_get_one(model: InReaCh, tmp_path: Path) -> None:
    model.save(tmp_path / "m")
    meta, arrays = model_file.load_file(tmp_path / "m")
    plain = {name: array for name, array in arrays.items() if not name.startswith("index.")}
    assert len(plain) < len(arrays)
    model_file.save_file(tmp_path / "plain", meta, plain)
    loaded = InReaCh.load(tmp_path / "plain")
    assert loaded.score_descriptors(X[1]).score == model.score_descriptors(X[1]).score
    loaded.save(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "m").read_bytes()


def test_a_garbled_index_is_told(model: InReaCh, tmp_path: Path) -> None:
    model.save(tmp_path / "m")
    meta, arrays = model_file.load_file(tmp_path / "m")
    for name in [name for name in arrays if name.startswith("index.") and arrays[name].size]:
        model_file.save_file(tmp_path / "garbled", meta, {**arrays, name: arrays[name][:-1]})
        with pytest.raises(ModelCorruptError, match="index"):
            InReaCh.load(tmp_path / "garbled").score_descriptors(X[0])
