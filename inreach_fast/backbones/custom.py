"""A user's own backbone: "FILE.py:FACTORY"."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType

from ..errors import BackboneError, InReachError
from .definition import BackboneDefinition


def is_factory_name(name: str) -> bool:
    """Whether a backbone's name has the form FILE.py:FACTORY."""
    file, _, factory = name.rpartition(":")
    return file.endswith(".py") and factory.isidentifier()


class _FromSource(SourceFileLoader):
    """Ignores cached bytecode, which is taken for fresh if the file was changed to another of the same length within a
    second; and writes none beside the user's file.
    """

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)


def custom_definition(name: str) -> BackboneDefinition:
    """Run FACTORY() of FILE.py, which must return a `BackboneDefinition` with its weights.

    The file's code is executed: give only files that you trust.

    Raises:
        BackboneError: no such file or function, it failed, or it returned something else.
    """
    file, _, factory_name = name.rpartition(":")
    path = Path(file).expanduser().resolve()
    if not path.is_file():
        raise BackboneError(f"backbone: there is no file {path}; check the path in {name!r}")
    module_name = "inreach_fast_custom_" + hashlib.sha256(str(path).encode()).hexdigest()[:16]
    spec = importlib.util.spec_from_file_location(module_name, path, loader=_FromSource(module_name, str(path)))
    if spec is None or spec.loader is None:  # only for a suffix that Python does not know
        raise BackboneError(f"backbone: {path} is not a Python file; check the path in {name!r}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module  # dataclasses and pickling in the user's file look there
    try:
        spec.loader.exec_module(module)
        factory = getattr(module, factory_name, None)
        if not callable(factory):
            raise BackboneError(f"backbone: {path} defines no function {factory_name!r}; check {name!r}")
        definition = factory()
    except InReachError:
        raise
    except Exception as error:
        raise BackboneError(f"backbone: {name!r} failed with {type(error).__name__}: {error}") from error
    if not isinstance(definition, BackboneDefinition):
        kind = type(definition).__name__
        raise BackboneError(
            f"backbone: {factory_name}() of {name!r} returned a {kind}; it must return "
            "inreach_fast.backbones.BackboneDefinition(module, levels, normalisation, name)"
        )
    return definition
