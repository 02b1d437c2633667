"""copy, deepcopy, pickle and joblib of models; arrays of other libraries in."""

from __future__ import annotations

import copy
import io
import pickle
import pickletools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from descriptor_sets import shared_patches
from small_fits import estimator, pictures, saved

from inreach_fast import InReaCh
from inreach_fast.errors import NotPicklableError

FACTORY = """
import torch
from inreach_fast.backbones import IMAGENET, BackboneDefinition


def build():
    torch.manual_seed(0)
    module = torch.nn.Sequential()
    module.add_module("a", torch.nn.Conv2d(3, 16, 4, stride=4))
    module.add_module("b", torch.nn.Conv2d(16, 24, 3, stride=2, padding=1))
    return BackboneDefinition(module, ("a", "b"), IMAGENET, "tiny")
"""


def pickled(model: Any) -> Any:
    return pickle.loads(pickle.dumps(model))


def through_joblib(model: Any) -> Any:
    file = io.BytesIO()
    joblib.dump(model, file, compress=1)
    file.seek(0)
    return joblib.load(file)


@pytest.fixture
def factory(tmp_path: Path) -> str:
    (tmp_path / "tiny.py").write_text(FACTORY)
    return f"{tmp_path / 'tiny.py'}:build"


@pytest.mark.parametrize("act", [copy.copy, copy.deepcopy, pickled, through_joblib])
def test_a_copy_is_the_model(act: Callable[[Any], Any], factory: str, tmp_path: Path) -> None:
    model = estimator(backbone=factory, memory_limit="1GB", precision="bfloat16").fit(pictures())
    model.reject(pictures(1, seed=5)[0], (4, 4, 8, 8))
    model.threshold_ = 3.5
    twin = act(model)
    assert saved(twin, tmp_path) == saved(model, tmp_path)
    assert twin.parameters == model.parameters
    assert (twin.memory_limit, twin.precision, twin.threshold_) == (10**9, "bfloat16", 3.5)
    image = pictures(1, seed=6)[0]
    np.testing.assert_array_equal(twin.predict(image).anomaly_map, model.predict(image).anomaly_map)
    twin.undo_feedback(1)
    twin.threshold_ = 1.0
    twin.fit(pictures(6))
    assert (len(model.feedback_), model.threshold_, model.n_images_) == (1, 3.5, 10)


@pytest.mark.parametrize("act", [copy.copy, copy.deepcopy, pickled, through_joblib])
def test_copies_of_models_without_a_network(act: Callable[[Any], Any]) -> None:
    x = shared_patches(8, 16, 12)
    model = act(InReaCh("channels", image_size=16, assoc_depth=3))
    assert model.parameters.assoc_depth == 3
    model.fit_descriptors(x, (4, 4))
    np.testing.assert_array_equal(
        act(model).score_descriptors(x[0]).patch_scores, model.score_descriptors(x[0]).patch_scores
    )


def test_a_pickle_holds_the_models_file_and_names_one_function(tmp_path: Path) -> None:
    model = InReaCh("channels", image_size=16).fit_descriptors(shared_patches(8, 16, 12), (4, 4))
    data = pickle.dumps(model)
    assert saved(model, tmp_path) in data
    named = {arg for _, arg, _ in pickletools.genops(data) if isinstance(arg, str) and arg.startswith("inreach_fast")}
    assert named == {"inreach_fast.estimator.pickling", "inreach_fast.estimator.inreach"}


@pytest.mark.parametrize("fitted", [False, True])
def test_a_network_that_cannot_be_rebuilt_is_copied_and_not_pickled(fitted: bool) -> None:
    model = estimator()
    if fitted:
        model.fit(pictures())
        image = pictures(1, seed=5)[0]
        assert copy.deepcopy(model).predict(image).score == model.predict(image).score
    with pytest.raises(NotPicklableError, match=r"'tiny' is an object .*InReaCh\.load\(path, backbone="):
        pickle.dumps(model)
    with pytest.raises(NotPicklableError):
        joblib.dump(model, io.BytesIO())


class Foreign:
    """An array that has DLPack and nothing else of NumPy."""

    def __init__(self, array: Any) -> None:
        self._array, self.shape = array, array.shape

    def __dlpack__(self, **options: Any) -> Any:
        return self._array.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self._array.__dlpack_device__()


def test_arrays_with_dlpack_are_images_and_descriptors(tmp_path: Path) -> None:
    images = np.stack(pictures())
    model = estimator().fit(images)
    assert saved(estimator().fit(Foreign(images)), tmp_path) == saved(model, tmp_path)
    assert saved(estimator().fit([Foreign(image) for image in images]), tmp_path) == saved(model, tmp_path)
    one = pictures(1, seed=5)[0]
    for image in (Foreign(one), {"image": Foreign(one)}):
        found = model.predict(image)
        assert not found.is_batch
        np.testing.assert_array_equal(found.anomaly_map, model.predict(one).anomaly_map)
        assert type(found.anomaly_map) is np.ndarray
    assert len(model.predict(Foreign(images[:3]))) == 3
    x = shared_patches(8, 16, 12)
    rows = InReaCh("channels", image_size=16).fit_descriptors(Foreign(x), (4, 4))
    assert rows.score_descriptors(Foreign(x[0])).score == rows.score_descriptors(x[0]).score
