"""Every code block of every page: Python and `inreach` are run, C++ is compiled, other commands are looked up.

A page's Python shares one namespace. Each block finds the folder of `doc_folder.fill`, fresh; a page that says
``<!-- one folder -->`` begins with an empty folder, and its blocks find what the blocks before them left.
"""

from __future__ import annotations

import ast
import configparser
import importlib
import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import doc_folder
import pytest
import torch
from doc_blocks import ROOT, Block, blocks, commands, pages
from doc_service import curl, serving_model

import inreach_fast
from inreach_fast.cli.main import build_parser, main

# Why a block is not run, and whether it can be run here after all.
REASONS = {
    "needs anomalib": lambda: importlib.util.find_spec("anomalib") is not None,
    "needs a GPU": torch.cuda.is_available,
    "needs other weights": lambda: False,
    "takes days": lambda: False,
}
LANGUAGES = {"python", "sh", "cmake", "text", "json", "ini", "cpp", "bibtex", ""}
# Options with which a command ends by itself, or soon.
ENDING = {
    "watch": ["--once", "--settle", "0", "--poll", "0.01"],
    "demo": ["--images", "6", "--test-images", "3", "--image-size", "64", "--texture", "brick"],
    "evaluate": ["--image-size", "64"],
}
PROGRAM = re.compile(r"(\$ )?((inreach|pip|make|python|pytest|curl|cmake|import|from|git) |model\.)")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder that pages find."""
    folder = tmp_path_factory.mktemp("template")
    with doc_folder.small_network(tmp_path_factory.mktemp("network")):
        doc_folder.fill(folder)
        yield folder


@pytest.mark.parametrize("page", pages())
def test_every_block_of_a_page_holds(
    page: str, template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, names = tmp_path / "here", doc_folder.names(page)
    monkeypatch.chdir(ROOT)
    keeps = "<!-- one folder -->" in (ROOT / page).read_text(encoding="utf-8")
    for block in blocks(page):
        assert block.language in LANGUAGES, f"{block}: {block.language}"
        if block.language in ("python", "sh") and not keeps:
            doc_folder.fresh(template, folder)
        if block.reason is not None:
            assert block.reason in REASONS, f"{block}: {block.reason!r} is no known reason"
        runs = block.reason is None or REASONS[block.reason]()
        with doc_folder.working_in(folder if folder.exists() else tmp_path):
            CHECKS[block.language](block, names, runs)


def python(block: Block, names: dict[str, Any], runs: bool) -> None:
    code = "\n" * (block.line - 1) + block.text
    if runs:
        exec(compile(code, block.page, "exec"), names)
        return
    for node in ast.walk(ast.parse(code, block.page)):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("inreach_fast"):
            if importlib.util.find_spec(node.module) is None:
                pytest.fail(f"{block}: there is no {node.module}")
            if block.reason != "needs anomalib":
                for name in node.names:
                    assert hasattr(importlib.import_module(node.module), name.name), f"{block}: {name.name}"
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "inreach_fast":
            assert hasattr(inreach_fast, node.attr), f"{block}: inreach_fast.{node.attr}"


def shell(block: Block, names: dict[str, Any], runs: bool) -> None:
    with serving_model(
        any(words[:2] == ["inreach", "serve"] for words in commands(block)), Path("part.inreach")
    ) as port:
        for words in commands(block):
            program = words[0]
            assert program in PROGRAMS, f"{block}: {program}"
            if program == "curl":
                curl(words, port)
            elif program == "inreach" and runs and words[1] != "serve":
                inreach(block, words)
            else:
                PROGRAMS[program](block, words)


def inreach(block: Block, words: list[str]) -> None:
    """Runs the command; a pattern stands for the files that it matches."""
    given = [path for word in words[1:] for path in (sorted(map(str, Path().glob(word))) if "*" in word else [word])]
    line = shlex.join(words)
    assert given, line
    code = main([*given, *ENDING.get(given[0], [])])
    assert code == (10 if "--fail-on-anomaly" in words else 0), f"{block}: {line} ended with {code}"


def understood(block: Block, words: list[str]) -> None:
    """Options and arguments of an `inreach` that is not run."""
    try:
        build_parser(words[1]).parse_args(words[1:])
    except SystemExit:
        pytest.fail(f"{block}: {shlex.join(words)}")


def pip(block: Block, words: list[str]) -> None:
    """The extras that are installed exist."""
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    extras = set(re.findall(r"^([a-z]+) = \[", project.split("[project.optional-dependencies]")[1], re.MULTILINE))
    assert words[1] == "install", f"{block}: {words}"
    for package, named in re.findall(r"^(\S+?)\[([a-z,]+)\]$", "\n".join(words), re.MULTILINE):
        assert package in (".", "inreach_fast"), f"{block}: {package}"
        assert set(named.split(",")) <= extras, f"{block}: {named}"


def make(block: Block, words: list[str]) -> None:
    targets = re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    for word in words[1:]:
        assert word in targets or re.match(r"[A-Z_]+=", word), f"{block}: make {word}"


def module(block: Block, words: list[str]) -> None:
    """``python -m MODULE``: the module is there and knows the options; of `bench` also the sections."""
    if words[1] == "-m" and words[2] == "bench":
        from bench.__main__ import LONG_SECTIONS, MORE_SECTIONS, SECTIONS, _parser

        options = _parser().parse_args(words[3:])
        assert set(options.only.split(",")) <= {*SECTIONS, *MORE_SECTIONS, *LONG_SECTIONS}, f"{block}: {options.only}"
        return
    if words[1] != "-m":
        assert (ROOT / words[1]).is_file(), f"{block}: {words[1]}"
        return
    name = words[2]
    if not name.startswith("bench."):
        assert name in ("pytest", "build", "venv"), f"{block}: {name}"
        return
    path = ROOT / name.replace(".", "/")
    source = path.with_suffix(".py").read_text(encoding="utf-8")
    for word in words[3:]:
        assert not word.startswith("--") or f'"{word}"' in source, f"{block}: {name} {word}"


def paths(block: Block, words: list[str]) -> None:
    """Files and folders of the repository that a command names."""
    for word in words:
        if "/" in word and not word.startswith(("<", "build/", "-")):
            assert (ROOT / word).exists() or (ROOT / "tests" / word).exists(), f"{block}: {word}"


def anything(block: Block, words: list[str]) -> None:
    """Programs of others."""


PROGRAMS: dict[str, Any] = {
    "inreach": understood,
    "curl": None,
    "pip": pip,
    "make": make,
    "python": module,
    "pytest": paths,
    "cd": paths,
    "cmake": paths,
    "build/example/search": anything,
    ".ci/run": paths,
    ".ci/wheel": paths,
    **dict.fromkeys(("git", "apt", "pre-commit", "ray", "compute-sanitizer", "ncu", "nsys"), anything),
}


def cpp(block: Block, names: dict[str, Any], runs: bool) -> None:
    """The compiler accepts it: with a main, or as the body of a function."""
    compiler = shutil.which(os.environ.get("CXX", "c++"))
    if compiler is None:
        pytest.skip("no C++ compiler is here")
    source = block.text if "int main" in block.text else f"#include <vector>\nvoid page() {{\n{block.text}}}\n"
    command = [compiler, "-std=c++17", "-fsyntax-only", "-Wall", "-Wextra", "-I", str(ROOT / "csrc" / "include"), "-x"]
    done = subprocess.run([*command, "c++", "-"], input=source, capture_output=True, text=True)
    assert done.returncode == 0, f"{block}: {done.stderr}"


def unit(block: Block, names: dict[str, Any], runs: bool) -> None:
    """A systemd unit: its command is understood."""
    parser = configparser.ConfigParser()
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(block.text)
    program, *words = shlex.split(parser["Service"]["ExecStart"])
    assert Path(program).name == "inreach"
    understood(block, ["inreach", *words])


def parsed(block: Block, names: dict[str, Any], runs: bool) -> None:
    for line in block.text.splitlines():
        json.loads(line)


def no_code(block: Block, names: dict[str, Any], runs: bool) -> None:
    """Output, and what has no language: a formula, a drawing or a list."""
    for line in block.text.splitlines():
        assert not PROGRAM.match(line), f"{block}: {line!r} needs a fence with its language"


def cmake_file(block: Block, names: dict[str, Any], runs: bool) -> None:
    """Lines of a CMakeLists.txt: its targets are those of the project's own."""
    own = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
    for target in re.findall(r"\binreach_\w+", block.text.replace("add_subdirectory(inreach_fast)", "")):
        assert f"add_library({target}" in own, f"{block}: {target}"


def nothing(block: Block, names: dict[str, Any], runs: bool) -> None:
    """What only others read."""


CHECKS = {
    "python": python,
    "sh": shell,
    "cpp": cpp,
    "ini": unit,
    "json": parsed,
    "text": no_code,
    "cmake": cmake_file,
    "bibtex": nothing,
    "": no_code,
}
