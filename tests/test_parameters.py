from __future__ import annotations

import json
from typing import Any

import pytest

from inreach_fast.errors import ParameterError
from inreach_fast.parameters import PRESETS, Parameters

BAD: list[tuple[str, Any]] = [
    ("depth", 0),
    ("depth", 14),
    ("depth", "deep"),
    ("depth", True),
    ("depth", ()),
    ("depth", ("layer1.0", "layer1.0")),
    ("neighbourhood", 2),
    ("neighbourhood", 0),
    ("dim", 0),
    ("image_size", 0),
    ("image_size", (224,)),
    ("image_size", (224, "x")),
    ("resize", 100),
    ("position", "sometimes"),
    ("position", None),
    ("position_weight", -1),
    ("position_weight", float("nan")),
    ("transpose_threshold", float("inf")),
    ("align", "always"),
    ("assoc_depth", 0),
    ("assoc_depth", 2.5),
    ("seed_selection", "last"),
    ("random_state", -1),
    ("random_state", None),
    ("assoc_pairs", "earlier"),
    ("span_filter", 1),
    ("spread_filter", "yes"),
    ("min_channel_length", -1),
    ("max_channel_std", 0),
    ("score", "mean"),
    ("distance", "cosine"),
    ("smoothing_sigma", -0.1),
    ("threshold_images", 1),
    ("batch_size", 0),
    ("normalisation", "bgr"),
    ("backend", 3),
    ("bit_depth", 9),
    ("bit_depth", "12"),
    ("bit_depth", None),
    ("bit_depth", True),
    ("bit_depth", 12.5),
    ("max_pixels", 0),
    ("max_pixels", "many"),
    ("backbone", ""),
    ("weights", None),
]


@pytest.mark.parametrize(("name", "value"), BAD)
def test_a_value_that_is_not_allowed_is_named(name: str, value: Any) -> None:
    with pytest.raises(ParameterError, match=name) as caught:
        Parameters.from_preset(**{name: value})
    assert "expected" in str(caught.value) or "twice" in str(caught.value) or "smaller" in str(caught.value)


def test_unknown_names_and_presets() -> None:
    with pytest.raises(ParameterError, match=r"assoc_dept: no such parameter.*assoc_depth"):
        Parameters.from_preset(assoc_dept=3)
    with pytest.raises(ParameterError, match=r"preset: expected one of 'default', 'channels', 'paper', 'reference'"):
        Parameters.from_preset("authors")


def test_presets() -> None:
    default, paper, reference = (Parameters.from_preset(p) for p in ("default", "paper", "reference"))
    assert default.resize is None
    assert default.image_size == (224, 224)
    assert (default.seed_selection, paper.seed_selection, reference.seed_selection) == ("random", "first", "first")
    assert paper.resize == reference.resize == (256, 256)
    assert (paper.assoc_pairs, reference.assoc_pairs) == ("all", "later")
    assert (paper.smoothing_sigma, reference.smoothing_sigma) == (5, 13)
    assert (paper.transpose_threshold, reference.transpose_threshold) == (600, 1000)
    assert (default.align, paper.align, reference.align) == ("never", "auto", "never")
    assert (paper.depth, reference.depth) == (13, "reference")
    assert (reference.normalisation, paper.normalisation) == ("reference", None)


@pytest.mark.parametrize("preset", list(PRESETS))
def test_json_round_trip(preset: str) -> None:
    parameters = Parameters.from_preset(preset, image_size=(32, 48), resize=None, depth=["a", "b.c"])
    assert Parameters.from_dict(json.loads(json.dumps(parameters.as_dict()))) == parameters
    assert parameters.depth == ("a", "b.c")


def test_changes_are_checked_too() -> None:
    with pytest.raises(ParameterError, match="dim"):
        Parameters().with_changes(dim=-1)
    assert Parameters().with_changes(dim=64).dim == 64


@pytest.mark.parametrize("preset", ["paper", "reference"])
def test_the_papers_resize_follows_the_image_size(preset: str) -> None:
    """256 to 224 as in the paper: the same part of the image is seen at any size."""
    for size, resize in (
        (224, (256, 256)),
        (112, (128, 128)),
        (320, (366, 366)),
        ((224, 448), (256, 512)),
        (8, (9, 9)),
    ):
        assert Parameters.from_preset(preset, image_size=size).resize == resize
    assert Parameters.from_preset(preset, image_size=112, resize=200).resize == (200, 200)
    assert Parameters.from_preset(preset, image_size=112, resize=None).resize is None
    assert Parameters.from_preset(preset).resize == (256, 256)
    assert Parameters.from_preset("default", image_size=112).resize is None
    # What a model was fitted with stays.
    saved = Parameters.from_preset(preset, image_size=112, resize=256).as_dict()
    assert Parameters.from_dict(saved).resize == (256, 256)


def test_bit_depth_and_pixel_limit_of_models_saved_before() -> None:
    values = Parameters.from_preset(bit_depth=12, max_pixels=10**9).to_saved()
    newer = Parameters.from_dict(json.loads(json.dumps(values)))
    assert (newer.bit_depth, newer.max_pixels) == (12, 10**9)
    values = Parameters.from_preset().to_saved()
    assert not {"bit_depth", "max_pixels"} & set(values)
    older = Parameters.from_dict(values)
    assert (older.bit_depth, older.max_pixels) == ("auto", 178_956_970)
