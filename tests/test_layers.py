"""The architecture, stated: imports go down only, in no circle, and at the top of a module.

Read from the source (`ast`), so that imports for type checkers count as well. Each rule is also tried on a made-up
package that breaks it.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

import inreach_fast

PACKAGE = Path(inreach_fast.__file__).parent

# From the top down. A room may import from those below its own line, and from itself.
LAYERS = (
    ("cli",),
    ("",),  # the package itself: the public API
    ("evaluation", "integrations", "serving"),
    ("estimator",),
    ("fit", "predict"),
    ("executors",),
    ("storage",),
    ("method",),
    ("images", "backbones"),
    ("kernels",),
    ("parameters", "system", "errors", "array_types", "_version", "_core", "_cuda"),
)
LEVEL = {room: len(LAYERS) - i for i, rooms in enumerate(LAYERS) for room in rooms}
# Within the last line modules may use each other.
FLOOR = 1

# Packages that may be missing, or that take long to import: these may be imported inside a function, and so may
# modules that bring one of them in.
SLOW = ("scipy",)  # always there, and no part of what `import inreach_fast` loads
OPTIONAL = frozenset(
    {
        *("torch", "torchvision", "timm", "ray", "cupy", "numba", "matplotlib", "sklearn", "skimage", "tqdm"),
        *("fastapi", "uvicorn"),
        *("openvino", "onnx", "onnxruntime"),
        *("anomalib", "lightning"),
        *("safetensors", "tifffile", "fcntl", "inreach_fast._core", "inreach_fast._cuda"),
    }
)
MOST_ENTRIES = 22
BUILT = frozenset({".so", ".pyd", ".fatbin"})


class Import(NamedTuple):
    """An import statement of the package's own: who imports what, on which line, and whether inside a function."""

    module: str
    target: str
    line: int
    in_function: bool

    def __str__(self) -> str:
        return f"{self.module} -> {self.target}"


def modules_of(package: Path) -> dict[str, Path]:
    """The package's modules by their full names, stubs of compiled ones among them."""
    found = {}
    for path in sorted([*package.rglob("*.py"), *package.glob("*.pyi")]):
        parts = path.relative_to(package.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports_of(package: Path) -> list[Import]:
    """All imports in the package, of its own modules and of others (by their first name)."""
    modules = modules_of(package)
    return [found for name in modules if modules[name].suffix == ".py" for found in _imports_in(name, modules)]


def _imports_in(name: str, modules: dict[str, Path]) -> Iterator[Import]:
    path = modules[name]
    home = name if path.stem == "__init__" else name.rpartition(".")[0]

    def visit(node: ast.AST, in_function: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                for alias in child.names:
                    yield Import(name, _named(alias.name, modules), child.lineno, in_function)
            elif isinstance(child, ast.ImportFrom):
                base = child.module or ""
                if child.level:
                    up = home.split(".")[: len(home.split(".")) - child.level + 1]
                    base = ".".join([*up, *([base] if base else [])])
                for target in {_named(f"{base}.{alias.name}", modules) for alias in child.names}:
                    yield Import(name, target, child.lineno, in_function)
            else:
                inner = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
                yield from visit(child, in_function or inner)

    return visit(ast.parse(path.read_text(encoding="utf-8")), False)


def _named(target: str, modules: dict[str, Path]) -> str:
    """The module that an imported name is in; of another package its first name."""
    while target not in modules:
        if "." not in target:
            return target
        target = target.rpartition(".")[0]
    return target


def _own(imports: Iterable[Import], package: str) -> list[Import]:
    return [found for found in imports if found.target.split(".")[0] == package]


def crossed_layers(imports: Iterable[Import], package: str) -> list[str]:
    """Imports that go up, or from one room to another on the same line."""

    def room(module: str) -> str:
        return [*module.split("."), ""][1]

    broken = []
    for found in _own(imports, package):
        own, other = room(found.module), room(found.target)
        if own == other or (LEVEL.get(own) == FLOOR and LEVEL.get(other) == FLOOR):
            continue
        if own not in LEVEL or other not in LEVEL or LEVEL[other] >= LEVEL[own]:
            broken.append(str(found))
    return broken


def circle(imports: Iterable[Import], package: str) -> list[str]:
    """Modules that import each other in a circle, in order; none where there is no circle."""
    graph: dict[str, set[str]] = {}
    for found in _own(imports, package):
        if found.module != found.target:
            graph.setdefault(found.module, set()).add(found.target)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(reversed(error.args[1]))
    return []


def inside_functions(imports: Iterable[Import]) -> list[str]:
    """Imports inside functions without an optional or slow package, in themselves or in what they import."""
    imports = list(imports)
    slow = {*OPTIONAL, *SLOW}
    while more := {x.module for x in imports if x.target in slow and not x.in_function} - slow:
        slow |= more
    return [str(x) for x in imports if x.in_function and x.target not in slow]


def entries(package: Path) -> list[str]:
    """Files and folders at the package's top, without caches and build outputs."""
    return sorted(x.name for x in package.iterdir() if x.name != "__pycache__" and x.suffix not in BUILT)


@pytest.fixture(scope="module")
def imports() -> list[Import]:
    return imports_of(PACKAGE)


def test_imports_go_down_only(imports: list[Import]) -> None:
    assert sorted(map(str, crossed_layers(imports, "inreach_fast"))) == []


def test_there_is_no_circle(imports: list[Import]) -> None:
    assert circle(imports, "inreach_fast") == []


def test_imports_stand_at_the_top_of_a_module(imports: list[Import]) -> None:
    assert sorted(map(str, inside_functions(imports))) == []


def test_the_top_of_the_package_is_short() -> None:
    assert len(entries(PACKAGE)) <= MOST_ENTRIES, entries(PACKAGE)


# ------------------------------------------------------------------------------------- the rules can fail


def made_up(folder: Path, **sources: str) -> list[Import]:
    """The imports of a package "p" of these modules; ``room__module="source"``."""
    (folder / "p").mkdir()
    (folder / "p" / "__init__.py").write_text("")
    for name, source in sources.items():
        path = folder.joinpath("p", *name.split("__")).with_suffix(".py")
        path.parent.mkdir(exist_ok=True)
        (path.parent / "__init__.py").touch()
        path.write_text(source)
    return imports_of(folder / "p")


@pytest.mark.parametrize(
    ("module", "source", "target"),
    [
        ("method__a", "from ..fit import b", "p.fit.b"),
        ("method__a", "from ..fit.b import name", "p.fit.b"),
        ("method__a", "import p.fit.b", "p.fit.b"),
        ("method__a", "def f():\n    from ..fit import b", "p.fit.b"),
        ("method__a", "if TYPE_CHECKING:\n    from ..fit.b import name", "p.fit.b"),
        ("predict__a", "from ..fit.b import name", "p.fit.b"),
        ("memory", "from .fit.b import name", "p.fit.b"),
        ("memory", "from . import __version__", "p"),
        ("unheard_of", "from .fit.b import name", "p.fit.b"),
    ],
)
def test_an_import_that_goes_up_is_found(tmp_path: Path, module: str, source: str, target: str) -> None:
    found = made_up(tmp_path, fit__b="name = 1", **{module: source})
    assert crossed_layers(found, "p") == [f"p.{module.replace('__', '.')} -> {target}"]


def test_imports_that_go_down_are_not(tmp_path: Path) -> None:
    found = made_up(
        tmp_path, kernels__a="from ..errors import e", fit__b="from .. import kernels\nfrom . import c", fit__c="",
        errors="from .parameters import m", parameters="import os", cli__d="from ..fit.b import name",
    )  # fmt: skip
    assert crossed_layers(found, "p") == []


@pytest.mark.parametrize(
    "back", ["from . import a", "def f():\n    from .a import x", "if TYPE_CHECKING:\n    from .a import x"]
)
def test_a_circle_is_found(tmp_path: Path, back: str) -> None:
    found = made_up(tmp_path, fit__a="from .b import y", fit__b="from .c import z", fit__c=back)
    assert set(circle(found, "p")) == {"p.fit.a", "p.fit.b", "p.fit.c"}
    assert circle([x for x in found if x.module != "p.fit.c"], "p") == []


def test_an_import_inside_a_function_is_found(tmp_path: Path) -> None:
    found = made_up(
        tmp_path,
        fit__a="def f():\n    import torch\n    from . import slow, plain\n    import json",
        fit__slow="from . import slower",
        fit__slower="import numba.core",
        fit__plain="def g():\n    import torch",
    )
    assert inside_functions(found) == ["p.fit.a -> p.fit.plain", "p.fit.a -> json"]


def test_build_outputs_are_not_counted(tmp_path: Path) -> None:
    for name in ("a.py", "_core.so", "_core.pyi", "x.fatbin"):
        (tmp_path / name).touch()
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "room").mkdir()
    assert entries(tmp_path) == ["_core.pyi", "a.py", "room"]


def test_no_two_classes_share_a_name() -> None:
    found: dict[str, list[str]] = {}
    for name, path in modules_of(PACKAGE).items():
        if path.suffix == ".py":
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ClassDef):
                    found.setdefault(node.name, []).append(name)
    assert found
    assert {name: places for name, places in found.items() if len(places) > 1} == {}
