"""The project as a whole: its pages, metadata and modules agree, and no file names a path of one machine."""

from __future__ import annotations

import argparse
import ast
import importlib
import pkgutil
import re
import shlex
import subprocess
from pathlib import Path

import pytest

import inreach_fast

ROOT = Path(__file__).resolve().parent.parent

# In pieces, so that this file does not contain what it looks for.
_MACHINE_PATHS = re.compile("|".join("/" + name for name in ("work/", "opt/venv", "root/", "home/[a-z]", "Users/")))
_SPARED = {"LICENSE"}


def _tracked() -> list[Path]:
    try:
        listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listing.decode().split("\0") if name and (ROOT / name).is_file()]


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _modules() -> list[Path]:
    """Every module except files of tests."""
    files = [path for folder in ("inreach_fast", "bench", "tests") for path in (ROOT / folder).rglob("*.py")]
    return sorted(path for path in files if not path.name.startswith("test_"))


def _version() -> str:
    found = re.search(r'^version = "([^"]+)"$', _text(ROOT / "pyproject.toml"), re.MULTILINE)
    assert found, "pyproject.toml gives no version"
    return found.group(1)


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "docs/architecture.md", ".ci/run"])
def test_every_make_target_that_a_page_names_exists(page: str) -> None:
    targets = set(re.findall(r"^([a-z][a-z-]*):", _text(ROOT / "Makefile"), re.MULTILINE))
    named = set(re.findall(r"(?:^|`|\$ )make (?:--?[a-zA-Z-]+ )*([a-z][a-z-]*)", _text(ROOT / page), re.MULTILINE))
    assert named <= targets, f"{page} names {sorted(named - targets)}, the Makefile has {sorted(targets)}"


def test_readme_names_the_two_commands() -> None:
    readme = _text(ROOT / "README.md")
    assert "make demo" in readme
    assert "make test" in readme


def _commands() -> dict[str, argparse.ArgumentParser]:
    from inreach_fast.cli.main import build_parser

    choices: dict[str, argparse.ArgumentParser] = {}
    for action in build_parser()._actions:
        if isinstance(action, argparse._SubParsersAction):
            choices.update(action.choices)
    return choices


def test_command_lines_of_the_readme_are_understood() -> None:
    readme = _text(ROOT / "README.md").replace("\\\n", " ")
    lines = [line for line in readme.splitlines() if re.match(r"inreach [a-z]+", line)]
    assert lines
    commands = _commands()
    for line in lines:
        words = shlex.split(line, comments=True)
        known = {option for action in commands[words[1]]._actions for option in action.option_strings}
        for word in words[2:]:
            assert not word.startswith("-") or word in known, f"{word} of {line!r}"


def test_python_of_the_readme_compiles_and_uses_real_names() -> None:
    from inreach_fast.estimator import InReaCh

    blocks = re.findall(r"```python\n(.*?)```", _text(ROOT / "README.md"), re.DOTALL)
    assert blocks
    for block in blocks:
        tree = ast.parse(block)
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("inreach_fast"):
                module = importlib.import_module(node.module)
                assert all(hasattr(module, name.name) for name in node.names), ast.unparse(node)
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and isinstance(node.func.value, ast.Name)
                and node.func.value.id in ("model", "InReaCh")
            ):
                assert hasattr(InReaCh, node.func.attr), node.func.attr


def test_links_between_pages_lead_somewhere() -> None:
    for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("csrc/**/*.md")]:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)(?:#[^)]*)?\)", _text(page)):
            assert (page.parent / target).exists(), f"{page.relative_to(ROOT)}: {target}"


def test_no_tracked_file_names_a_path_of_one_machine() -> None:
    found = []
    for path in _tracked():
        if path.name in _SPARED:
            continue
        try:
            text = _text(path)
        except UnicodeDecodeError:
            continue  # a picture
        found += [f"{path.relative_to(ROOT)}: {match.group()}" for match in _MACHINE_PATHS.finditer(text)]
    assert not found


def test_every_module_has_a_docstring() -> None:
    bare = []
    for path in _modules():
        tree = ast.parse(_text(path))
        if tree.body and not ast.get_docstring(tree):
            bare.append(str(path.relative_to(ROOT)))
    assert not bare, f"modules without a docstring: {', '.join(bare)}"


def test_nothing_is_left_to_do() -> None:
    words = re.compile("|".join(["TO" + "DO", "FIX" + "ME", "XX" + "X:"]))
    for path in _tracked():
        if path.suffix in (".py", ".cpp", ".h", ".md", ".toml"):
            assert not words.search(_text(path)), path.relative_to(ROOT)


def test_one_version_everywhere() -> None:
    version = _version()
    assert inreach_fast.__version__ == version
    assert re.search(rf"^## \[?{re.escape(version)}\b", _text(ROOT / "CHANGELOG.md"), re.MULTILINE)


def test_public_names_can_be_imported_and_are_documented() -> None:
    for package in (inreach_fast, importlib.import_module("inreach_fast.kernels")):
        assert package.__all__
        for name in package.__all__:
            assert getattr(package, name).__doc__, f"{package.__name__}.{name}"


def test_every_module_of_the_package_can_be_imported() -> None:
    missing = []
    for module in pkgutil.walk_packages(inreach_fast.__path__, "inreach_fast."):
        if module.name.endswith("__main__"):
            continue
        try:
            importlib.import_module(module.name)
        except ImportError as error:  # an optional library may be absent, nothing of our own
            if error.name is None or error.name.startswith("inreach_fast"):
                missing.append(f"{module.name}: {error}")
    assert not missing


def test_every_error_is_an_inreach_error() -> None:
    from inreach_fast import errors

    kinds = [
        value
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, Exception) and not issubclass(value, Warning)
    ]
    assert len(kinds) > 10
    assert all(issubclass(kind, errors.InReachError) for kind in kinds)


def test_licence_is_the_one_that_the_metadata_names() -> None:
    licence = _text(ROOT / "LICENSE")
    assert "Apache License" in licence
    assert "Version 2.0, January 2004" in licence
    assert 'license = { text = "Apache-2.0" }' in _text(ROOT / "pyproject.toml")
