from __future__ import annotations

import numpy as np
import pytest

from inreach_fast.predict.prediction import Prediction


def test_a_batch_gives_its_images_one_by_one() -> None:
    batch = Prediction(
        score=np.array([1, 2], np.float32),
        is_anomalous=np.array([False, True]),
        anomaly_map=np.zeros((2, 4, 4), np.float32),
        patch_scores=np.zeros((2, 2, 2), np.float32),
        nearest=np.zeros((2, 2, 2), np.int64),
        rotation=np.array([0.0, 90.0]),
        original_size=((4, 4), (5, 6)),
    )
    assert len(batch) == 2
    last = batch[-1]
    assert (last.score, last.is_anomalous, last.rotation, last.original_size) == (2.0, True, 90.0, (5, 6))
    assert last.anomaly_map.shape == (4, 4)
    assert [p.score for p in batch] == [1.0, 2.0]
    with pytest.raises(IndexError):
        batch[2]
    assert len(last) == 1
    with pytest.raises(IndexError, match="single"):
        last[0]
