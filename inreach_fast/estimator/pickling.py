"""Pickles of models: the bytes of the model's own file, which hold data and no program, and a few settings."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import NotPicklableError

_SETTINGS = ("memory_limit", "precision")


def check_network(network: dict[str, Any] | None) -> None:
    """Raises NotPicklableError for a network that cannot be rebuilt from its description.

    Args:
        network: `NetworkHolder.to_json`; None: the model has none.
    """
    if network is not None and not network["spec"].get("rebuildable"):
        raise NotPicklableError(
            f"pickle: the model's network {network['name']!r} is an object that cannot be rebuilt elsewhere; use "
            "save(path) and InReaCh.load(path, backbone=...), or give the network by name (FILE.py:FACTORY)"
        )


def settings_of(model: Any) -> dict[str, Any]:
    """What a model's file does not hold."""
    return {name: getattr(model, name) for name in _SETTINGS}


def file_bytes(save: Callable[[Path], None]) -> bytes:
    """The bytes of the file that ``save`` writes."""
    with tempfile.TemporaryDirectory(prefix="inreach-") as folder:
        save(Path(folder) / "model")
        return (Path(folder) / "model").read_bytes()


def from_bytes(kind: Any, data: bytes, settings: dict[str, Any]) -> Any:
    """A fitted model of the class ``kind`` from `file_bytes`; it is mapped from a file that has no name any more."""
    with tempfile.TemporaryDirectory(prefix="inreach-", ignore_cleanup_errors=True) as folder:
        path = Path(folder) / "model"
        path.write_bytes(data)
        return _with(kind.load(path), settings)


def unfitted(kind: Any, parameters: dict[str, Any], network: dict[str, Any] | None, settings: dict[str, Any]) -> Any:
    """A model that is not fitted."""
    return _with(kind._unfitted(parameters, network), settings)


def _with(model: Any, settings: dict[str, Any]) -> Any:
    for name, value in settings.items():
        setattr(model, name, value)
    return model
