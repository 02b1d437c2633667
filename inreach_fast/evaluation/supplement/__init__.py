"""The supplement's Tables 1 to 6 as data files.

Source: *Inter-Realization Channels: Unsupervised Anomaly Detection Beyond One-Class Classification*, ICCV 2023,
supplemental materials. Table 1: image AUROC of six methods; Table 2: pixel AUROC of ablations and alternative scores;
Table 3: transpose test; Tables 4 to 6: the test images that are added to each class's training set, in order.
"""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any

from ...errors import DataError, ParameterError


@cache
def supplement_table(number: int) -> dict[str, Any]:
    """Table ``number`` (1 to 6) as parsed JSON, shared by all callers. Raises ParameterError for other numbers."""
    if number not in (1, 2, 3, 4, 5, 6):
        raise ParameterError(f"number: the supplement has Tables 1 to 6, not {number!r}")
    text = files(__package__).joinpath(f"table{number}.json").read_text(encoding="utf-8")
    table: dict[str, Any] = json.loads(text)
    return table


#: Table 2's column of the proposed configuration.
PROPOSED = "position_embedding"

#: The fifteen MVTec AD classes, in the tables' order.
CLASSES: tuple[str, ...] = tuple(supplement_table(1)["classes"])


def corruption_list(class_name: str) -> tuple[str, ...]:
    """The 40 test images (``"crack/007.png"``) that corrupt this class's training set, in order.

    Raises:
        DataError: Tables 4 to 6 do not have the class.
    """
    for number in (4, 5, 6):
        classes = supplement_table(number)["classes"]
        if class_name in classes:
            return tuple(classes[class_name])
    raise DataError(
        f"class {class_name!r} has no corruption list in the supplement's Tables 4 to 6; evaluate it "
        f"with corrupt=0, or choose one of {', '.join(CLASSES)}"
    )


def _cell(number: int, class_name: str, column: str) -> float | None:
    table = supplement_table(number)
    row, keys = table["classes"].get(class_name), [head["key"] for head in table["columns"]]
    return row[keys.index(column)] if row is not None and column in keys else None


#: Table 1's columns of other methods, by their names in `evaluation.METHODS`.
_PEERS = {
    "spade": "spade",
    "cutpaste": "cut_paste",
    "patchsvdd": "patch_svdd",
    "padim": "padim",
    "patchcore": "patchcore",
}


def expected_figures(
    class_name: str, corrupt: int, column: str | None = PROPOSED, method: str = "inreach"
) -> dict[str, float | None]:
    """The supplement's figures for a class and a column of Table 2; None where its tables have none.

    ``image_auroc`` is Table 1's (0, 10 or 40 corruptions, the proposed configuration), ``pixel_auroc`` Table 2's (10
    corruptions), ``transpose_score`` Table 3's, in squared 8-bit intensity units. Of other methods than InReaCh there
    is Table 1's figure without corruptions alone.
    """
    if method != "inreach":
        known = _cell(1, class_name, _PEERS[method]) if corrupt == 0 and method in _PEERS else None
        return {"image_auroc": known, "pixel_auroc": None, "transpose_score": None}
    score = supplement_table(3)["classes"].get(class_name)
    return {
        "image_auroc": _cell(1, class_name, f"inreach_{corrupt}") if column == PROPOSED else None,
        "pixel_auroc": _cell(2, class_name, column) if corrupt == 10 and column else None,
        "transpose_score": None if score is None else float(score),
    }
