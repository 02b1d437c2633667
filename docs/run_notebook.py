"""Executes notebook.ipynb and writes it with its outputs (extra [docs]).

``PYTHONPATH=$PWD python docs/run_notebook.py`` in the repository's root, after `make dev`.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).resolve().parent / "notebook.ipynb"
LANGUAGE = {"display_name": "Python 3", "language": "python", "name": "python3"}


def executed() -> Any:
    """The notebook, executed in an empty folder; raises what a cell raises."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(
            notebook,
            timeout=600,
            kernel_name="python3",
            coalesce_streams=True,
            resources={"metadata": {"path": folder}},
        )
        client.execute()
    notebook.metadata = {"kernelspec": LANGUAGE, "language_info": {"name": "python"}}
    for number, cell in enumerate(notebook.cells):
        cell.metadata = {}
        cell.id = f"cell-{number}"
        for output in cell.get("outputs", []):
            if "image/jpeg" in output.get("data", {}):
                output["data"].pop("image/png", None)  # the same picture, ten times as large
    return notebook


if __name__ == "__main__":
    NOTEBOOK.write_text(json.dumps(executed(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
