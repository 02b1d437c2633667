"""What the estimator offers to users, and that all of it is documented."""

from __future__ import annotations

import inspect

import pytest

from inreach_fast import InReaCh


@pytest.mark.parametrize("name", sorted(name for name in vars(InReaCh) if not name.startswith("_")))
def test_what_users_call_is_documented(name: str) -> None:
    assert inspect.getdoc(inspect.getattr_static(InReaCh, name))


def test_the_estimators_module_offers_nothing_else() -> None:
    import inreach_fast.estimator

    assert inreach_fast.estimator.__all__ == ["InReaCh"]
    assert inreach_fast.estimator.InReaCh is InReaCh
