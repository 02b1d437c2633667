"""The scikit-learn detector: scikit-learn's own checks, and its scores by the definition."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import joblib
import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("sklearn", minversion="1.6")

from sklearn.base import clone
from sklearn.ensemble import IsolationForest
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from inreach_fast.errors import MixedSizesError, ParameterError, TooFewImagesError
from inreach_fast.integrations.sklearn import InReaChDetector
from inreach_fast.kernels import available_backends


@parametrize_with_checks([InReaChDetector(), InReaChDetector(witnesses=2, contamination=0.1)])
def test_scikit_learns_checks(estimator: Any, check: Any) -> None:
    check(estimator)


def data(seed: int = 0, rows: int = 90) -> NDArray[np.float32]:
    random = np.random.default_rng(seed)
    x = random.normal(size=(rows, 5)).astype(np.float32)
    x[:3] += 8 * np.eye(5, dtype=np.float32)[:3]
    return x


def by_definition(x: Any, groups: Any, queries: Any, k: int) -> NDArray[np.float64]:
    """The score of ALGORITHM section 8, without any index."""
    x, queries = x.astype(np.float64), queries.astype(np.float64)
    between = np.square(x[:, None] - x).sum(axis=2)
    confirmed = [
        np.sort([between[i, groups == other].min() for other in np.unique(groups) if other != groups[i]])[k - 1]
        for i in range(len(x))
    ]
    return np.maximum(np.square(queries[:, None] - x).sum(axis=2), confirmed).min(axis=1)


@pytest.mark.parametrize("backend", available_backends())
@pytest.mark.parametrize(("per_group", "k"), [(1, 1), (1, 3), (6, 1), (6, 2)])
def test_scores_are_those_of_the_definition(backend: str, per_group: int, k: int) -> None:
    x, queries, groups = data(), data(1), np.arange(90) // per_group
    model = InReaChDetector(witnesses=k, backend=backend).fit(x, groups=None if per_group == 1 else groups)
    np.testing.assert_allclose(-model.score_samples(queries), by_definition(x, groups, queries, k), rtol=1e-6)
    np.testing.assert_array_equal(model.predict(queries) == -1, model.decision_function(queries) < 0)


def test_names_are_groups_too_and_rows_without_groups_are_their_own() -> None:
    x, groups = data(), np.arange(90) // 6
    a = InReaChDetector().fit(x, groups=groups)
    b = InReaChDetector().fit(x, groups=[f"{g}.png" for g in groups])
    np.testing.assert_array_equal(a.score_samples(x), b.score_samples(x))
    own = InReaChDetector().fit(x, groups=np.arange(90))
    np.testing.assert_array_equal(own.score_samples(x), InReaChDetector().fit(x).score_samples(x))


def test_outliers_are_found_among_the_rows_themselves() -> None:
    x = data()
    assert set(np.argsort(InReaChDetector().fit(x).score_samples(x))[:3]) == {0, 1, 2}
    found = InReaChDetector(contamination=3 / 90).fit_predict(x)
    assert np.flatnonzero(found == -1).tolist() == [0, 1, 2]
    assert (InReaChDetector().fit_predict(x)[:3] == -1).all()


def test_it_works_in_pipelines_and_copies() -> None:
    x, groups = data().astype(np.float64) * 3 + 1, np.arange(90) // 6
    pipe = make_pipeline(StandardScaler(), InReaChDetector()).fit(x, inreachdetector__groups=groups)
    want = pipe.score_samples(x)
    file = io.BytesIO()
    joblib.dump(pipe, file)
    file.seek(0)
    for twin in (pickle.loads(pickle.dumps(pipe)), copy.deepcopy(pipe), joblib.load(file)):
        np.testing.assert_array_equal(twin.score_samples(x), want)
    again = clone(pipe).fit(x, inreachdetector__groups=groups)
    np.testing.assert_array_equal(again.score_samples(x), want)
    assert pipe.predict(x).shape == IsolationForest(n_estimators=5).fit(x).predict(x).shape


@pytest.mark.parametrize(
    ("parameters", "groups", "error", "message"),
    [
        ({"witnesses": 0}, None, ParameterError, "witnesses: expected a whole number"),
        ({"contamination": 0.6}, None, ParameterError, "contamination: expected"),
        ({"contamination": "some"}, None, ParameterError, "contamination: expected"),
        ({}, [1, 2], MixedSizesError, "groups: expected 90 entries"),
        ({}, np.zeros(90), TooFewImagesError, "witnesses: 1 other images"),
    ],
)
def test_what_cannot_be_fitted(parameters: Any, groups: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        InReaChDetector(**parameters).fit(data(), groups=groups)
