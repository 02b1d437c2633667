"""Docstrings as the reference shows them: no name and no error is lost."""

from __future__ import annotations

from importlib.util import module_from_spec, spec_from_file_location
from typing import Any

import pytest
from doc_blocks import ROOT

WRITTEN = """What it does.

Args:
    first, second: two numbers,
        of any size.
    **rest: others. first: is no new entry.

Attributes (after `fit`):
    size_: int. names_: list of str,
        in order;
        places_: int64.

Raises:
    DataError, ParameterError (a number);
    and others.
"""
READ = """What it does.

Args:
    first: two numbers,
        of any size.
    second: two numbers,
        of any size.
    **rest: others. first: is no new entry.

Attributes:
    size_: int.
    names_: list of str,
        in order;
    places_: int64.


**Raises:** DataError, ParameterError (a number); and others.
"""


@pytest.fixture(scope="module")
def docstrings() -> Any:
    pytest.importorskip("griffe", reason="the site needs the extra [docs]")
    spec = spec_from_file_location("docs_docstrings", ROOT / "docs" / "docstrings.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_name_has_an_entry_and_errors_are_a_paragraph(docstrings: Any) -> None:
    assert docstrings.readable(WRITTEN, ("size_", "names_", "places_", "first")) == READ


def test_what_has_no_section_stays(docstrings: Any) -> None:
    assert docstrings.readable("One line.") == "One line."
    assert docstrings.readable("One.\n\n    code: x\n\nTwo.") == "One.\n\n    code: x\n\nTwo."
