"""Libraries that are missing, or of another version."""

from __future__ import annotations

import sys
import warnings
from importlib import import_module

import pytest

from inreach_fast.errors import IntegrationError, IntegrationWarning
from inreach_fast.integrations.versions import check_version


def test_versions_are_compared() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_version("anomalib", "2.7.0", "2.7")
        check_version("anomalib", "2.7.3.dev1", "2.7")
    for minor in ("2.5.1", "2.10"):
        with pytest.warns(
            IntegrationWarning, match=rf"anomalib: version {minor}; this integration was tested with 2\.7"
        ):
            check_version("anomalib", minor, "2.7")
    for major in ("1.2.0", "3.0.0", "unknown"):
        with pytest.raises(IntegrationError, match=rf"version {major}; .*needs 2\.x; pip install"):
            check_version("anomalib", major, "2.7")


@pytest.mark.parametrize("library", ["sklearn", "anomalib"])
def test_a_missing_library_is_named(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"inreach_fast.integrations.{library}"
    monkeypatch.delitem(sys.modules, name, raising=False)
    for module in (library, f"{library}.base"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(IntegrationError, match=rf"needs .*pip install 'inreach_fast\[{library}\]'") as caught:
        import_module(name)
    assert caught.value.name == library
