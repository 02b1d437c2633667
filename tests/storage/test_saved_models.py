"""Models that an earlier version saved load, score and grow today, bit for bit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import saved_models

from inreach_fast import InReaCh
from inreach_fast.errors import FinalModelError

EXPECTED = json.loads((saved_models.FOLDER / "expected.json").read_text())


def load(name: str) -> InReaCh:
    backbone = None if name == saved_models.DESCRIPTORS else saved_models.network()
    return InReaCh.load(saved_models.FOLDER / name, backbone=backbone)


@pytest.mark.parametrize("name", [saved_models.IMAGES, saved_models.DESCRIPTORS, saved_models.FINAL])
def test_a_saved_model_is_saved_again_with_the_same_bytes(name: str, tmp_path: Path) -> None:
    load(name).save(tmp_path / name)
    assert (tmp_path / name).read_bytes() == (saved_models.FOLDER / name).read_bytes()


@pytest.mark.parametrize("name", [saved_models.IMAGES, saved_models.DESCRIPTORS])
def test_a_saved_model_scores_and_grows_as_it_did(name: str) -> None:
    model = load(name)
    assert saved_models.outcome(model) == EXPECTED[name]["loaded"]
    assert saved_models.outcome(saved_models.grown(model)) == EXPECTED[name]["grown"]


def test_a_final_model_scores_as_it_did() -> None:
    model = load(saved_models.FINAL)
    assert saved_models.outcome(model) == EXPECTED[saved_models.IMAGES]["loaded"]
    assert not model.can_grow
    with pytest.raises(FinalModelError, match="final=True"):
        saved_models.grown(model)
