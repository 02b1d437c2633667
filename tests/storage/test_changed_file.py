"""A model file that is overwritten under a loaded model: it answers as loaded, or says so."""

from __future__ import annotations

import gc
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kernel_cases import same_bits
from small_fits import estimator, pictures, tiny_backbone

from inreach_fast import InReaCh, kernels
from inreach_fast.errors import ModelChangedError, SaveError
from inreach_fast.system.memory import mapped_file

IMAGES = pictures(9)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two models of the same sizes."""
    folder = tmp_path_factory.mktemp("models")
    for name, seed in (("one", 0), ("other", 5)):
        # Without filters every patch of equally many images is nominal, or nearly.
        estimator(span_filter=False, spread_filter=False).fit(pictures(8, seed=seed)).save(folder / name)
    return folder / "one", folder / "other"


@pytest.fixture
def live(files: tuple[Path, Path], tmp_path: Path) -> Path:
    return Path(shutil.copy(files[0], tmp_path / "live"))


def loaded(path: Path) -> InReaCh:
    return InReaCh.load(path, backbone=tiny_backbone())


def rows_of(model: InReaCh) -> Any:
    grid = model.grid_[0] * model.grid_[1]
    return np.random.default_rng(0).standard_normal((grid, model.nominal_.patches.shape[1])).astype(np.float32)


Entry = Callable[[InReaCh, Path], Any]
ENTRIES: dict[str, Entry] = {
    "predict": lambda model, _: model.predict(IMAGES[8]).score,
    "predict a batch": lambda model, _: model.predict(IMAGES[:2]).score,
    "predict with a threshold": lambda model, _: model.predict(IMAGES[8], threshold=1.0).is_anomalous,
    "predict in time": lambda model, _: model.predict(IMAGES[8], budget_ms=10_000).score,
    "predict_stream": lambda model, _: [found.score for found in model.predict_stream(IMAGES[:2])],
    "score_descriptors": lambda model, _: model.score_descriptors(rows_of(model)).score,
    "training_scores": lambda model, _: model.training_scores(IMAGES[:8]),
    "training_map": lambda model, _: model.training_map(0, IMAGES[0]),
    "prepare": lambda model, _: model.prepare() and None,
    "nearest": lambda model, _: kernels.nearest(rows_of(model), model.nominal_.bank).sq_distance,
    "nearest of the array": lambda model, _: kernels.nearest(rows_of(model), model.nominal_.patches).sq_distance,
    "nearest_bounds": lambda model, _: kernels.nearest_bounds(rows_of(model), model.nominal_.bank).index,
    "nearest_answered": lambda model, _: kernels.nearest_answered(rows_of(model), model.nominal_.bank).index,
    "mutual_nearest": lambda model, _: kernels.mutual_nearest(rows_of(model), model.nominal_.bank).ab_index,
    "save": lambda model, folder: model.save(folder / "again"),
    "partial_fit": lambda model, _: model.partial_fit(IMAGES[8:]).threshold_,
    "partial_fit anew": lambda model, _: model.partial_fit(IMAGES[8:], refit=True).threshold_,
    "forget": lambda model, _: model.forget(next(i for i in range(8) if i not in model.seed_images_)).threshold_,
    "forget anew": lambda model, _: model.forget(0, refit=True).threshold_,
    "compress": lambda model, _: model.compress(to=0.5).nominal_.patches,
}


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("used", [False, True])
def test_overwritten_in_place(entry: str, used: bool, live: Path, files: tuple[Path, Path], tmp_path: Path) -> None:
    model = loaded(live)
    if used and entry not in ("partial_fit", "partial_fit anew", "forget", "forget anew"):
        ENTRIES[entry](model, tmp_path)
    (tmp_path / "again").unlink(missing_ok=True)
    shutil.copyfile(files[1], live)  # as `cp` does: the file stays, its content changes
    with pytest.raises(ModelChangedError, match=r"live: was overwritten .*; load it again"):
        ENTRIES[entry](model, tmp_path)
    assert not (tmp_path / "again").exists()
    assert {path.name for path in tmp_path.iterdir()} == {"live"}


@pytest.mark.parametrize("entry", ENTRIES)
def test_replaced_by_a_new_file_the_model_answers_as_loaded(
    entry: str, live: Path, files: tuple[Path, Path], tmp_path: Path
) -> None:
    expected = ENTRIES[entry](loaded(files[0]), tmp_path)
    model = loaded(live)
    other = Path(shutil.copy(files[1], tmp_path / "other"))
    os.replace(other, live)
    found = ENTRIES[entry](model, tmp_path)
    if entry == "save":
        assert (tmp_path / "again").read_bytes() == files[0].read_bytes()
    elif expected is not None:
        same_bits(np.asarray(found), np.asarray(expected))


def test_removed_the_model_answers_as_loaded(live: Path) -> None:
    model = loaded(live)
    before = model.predict(IMAGES[8]).score
    live.unlink()
    assert model.predict(IMAGES[8]).score == before


@pytest.mark.parametrize("size", [0, 100, -1])
def test_cut_short(size: int, live: Path) -> None:
    """Rows that are no longer there would end the process."""
    model = loaded(live)
    os.truncate(live, size if size >= 0 else live.stat().st_size - 1)
    with pytest.raises(ModelChangedError):
        model.predict(IMAGES[8])
    with pytest.raises(ModelChangedError):
        model.save(live)


def test_the_same_bytes_again_change_nothing(live: Path, files: tuple[Path, Path]) -> None:
    model = loaded(live)
    before = model.predict(IMAGES[8]).score
    shutil.copyfile(files[0], live)
    os.utime(live, ns=(1, 1))
    assert model.predict(IMAGES[8]).score == before
    with live.open("r+b") as file:  # one byte of an array, and no other sign of it than the time
        file.seek(70)
        byte = file.read(1)[0]
        file.seek(70)
        file.write(bytes([byte ^ 1]))
    os.utime(live, ns=(2, 2))
    with pytest.raises(ModelChangedError):
        model.predict(IMAGES[8])
    loaded(files[0]).save(live)  # a new file, which the loaded model does not know
    with pytest.raises(ModelChangedError):
        model.predict(IMAGES[8])
    assert loaded(live).predict(IMAGES[8]).score == before


def test_size_and_time_may_be_the_same(live: Path, tmp_path: Path) -> None:
    for name, threshold in (("live", 7.0), ("other", 8.0)):
        changed = loaded(live)
        changed.threshold_ = threshold
        changed.save(tmp_path / name)
    assert live.stat().st_size == (tmp_path / "other").stat().st_size
    os.utime(live, ns=(1, 1))
    model = loaded(live)
    shutil.copyfile(tmp_path / "other", live)
    os.utime(live, ns=(1, 1))
    with pytest.raises(ModelChangedError):
        model.predict(IMAGES[8])


def test_overwritten_while_images_are_added(live: Path, files: tuple[Path, Path]) -> None:
    model = loaded(live)
    threshold = model.threshold_

    def overwrite(stage: str, done: int, total: int) -> None:
        if stage == "threshold" and done == total:
            shutil.copyfile(files[1], live)

    with pytest.raises(ModelChangedError):
        model.partial_fit(IMAGES[8:], progress=overwrite)
    assert model.n_images_ == 8
    assert model.threshold_ == threshold


def test_what_was_made_of_a_loaded_model_no_longer_needs_its_file(live: Path, files: tuple[Path, Path]) -> None:
    small, grown = loaded(live).compress(to=0.5), loaded(live).partial_fit(IMAGES[8:])
    before = [model.predict(IMAGES[8]).score for model in (small, grown)]
    shutil.copyfile(files[1], live)
    assert [model.predict(IMAGES[8]).score for model in (small, grown)] == before


def test_overwritten_under_a_fit_whose_rows_became_the_file(tmp_path: Path) -> None:
    """`save` takes over the spool's rows: the fitted model is then mapped from the saved file."""
    model = estimator(memory_limit=90_000).fit(IMAGES, spool=tmp_path / "spool", keep_spool=True)
    model.save(tmp_path / "live")
    model.remove_spool()
    assert mapped_file(model.nominal_.patches) is not None
    before = model.predict(IMAGES[8]).score
    bytes_of = (tmp_path / "live").read_bytes()
    (tmp_path / "live").write_bytes(bytes_of[:64] + bytes(1000) + bytes_of[1064:])
    with pytest.raises(ModelChangedError):
        model.predict(IMAGES[8])
    (tmp_path / "live").write_bytes(bytes_of)
    assert model.predict(IMAGES[8]).score == before


def test_saving_elsewhere_fails_as_before(live: Path, tmp_path: Path) -> None:
    with pytest.raises(SaveError):
        loaded(live).save(tmp_path / "nowhere" / "model")


def test_a_model_that_is_gone_holds_no_file(live: Path) -> None:
    descriptors = Path("/proc/self/fd")
    if not descriptors.is_dir():
        pytest.skip("the system does not list open files")
    gc.collect()
    before = len(list(descriptors.iterdir()))
    model: Any = loaded(live)
    maps = len(list(descriptors.iterdir())) - before
    del model
    gc.collect()
    assert maps > 0
    assert len(list(descriptors.iterdir())) == before
