"""`InReaCh` is put together of base classes: none may hide what another one defines, and all of it is documented."""

from __future__ import annotations

import inspect
from collections import Counter

import pytest

from inreach_fast import InReaCh

PARTS = [part for part in InReaCh.__mro__ if part is not object]
PUBLIC = sorted({name for part in PARTS for name in vars(part) if not name.startswith("_")})


def test_every_name_is_defined_by_one_part() -> None:
    own = Counter(name for part in PARTS for name in vars(part) if not name.startswith("__"))
    assert own["fit"] == own["predict"] == own["load"] == 1
    assert [name for name, count in own.items() if count > 1] == []


@pytest.mark.parametrize("name", PUBLIC)
def test_what_users_call_is_documented(name: str) -> None:
    assert inspect.getdoc(inspect.getattr_static(InReaCh, name))


def test_the_estimators_module_offers_nothing_else() -> None:
    import inreach_fast.estimator

    assert inreach_fast.estimator.__all__ == ["InReaCh"]
    assert inreach_fast.estimator.InReaCh is InReaCh
