"""mkdocs' hooks: pages made of files outside of docs/, links between them, the notebook, and the command line.

Pages keep links that work in the repository; on the site a link to a file that has no page becomes the file's path.
"""

from __future__ import annotations

import argparse
import json
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parent.parent

# Page of the site -> file of the repository.
PROJECT = {
    "project/changelog.md": "CHANGELOG.md",
    "project/contributing.md": "CONTRIBUTING.md",
    "project/security.md": "SECURITY.md",
    "project/engine.md": "csrc/README.md",
    "project/bench.md": "bench/README.md",
}
_LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\((?!\w+:)([^()#\s]*)(#[^()\s]*)?\)")


def on_files(files: Any, config: Any) -> Any:
    """Adds the pages that are not files of docs/."""
    for page, source in PROJECT.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / source)))
    notebook = json.loads((ROOT / "docs" / "notebook.ipynb").read_text(encoding="utf-8"))
    files.append(File.generated(config, "notebook.md", content=notebook_page(notebook)))
    files.append(File.generated(config, "cli.md", content=command_line_page()))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Links that are right in the repository, as they must be on the site."""
    uri = page.file.src_uri
    here = posixpath.dirname(PROJECT.get(uri, f"docs/{uri}"))
    pages = {source: target for target, source in PROJECT.items()}

    def changed(found: re.Match[str]) -> str:
        image, text, target, anchor = found.groups()
        if not target:
            return found.group()
        path = posixpath.normpath(posixpath.join(here, target))
        if path == "docs/notebook.ipynb" and uri != "notebook.md":
            path = "docs/notebook.md"
        on_site = pages.get(path, path.removeprefix("docs/") if path.startswith("docs/") else None)
        if on_site is None:
            return text if text.strip("`") == path else f"{text} (`{path}`)"
        relative = posixpath.relpath(on_site, posixpath.dirname(uri) or ".")
        return f"{image}[{text}]({relative}{anchor or ''})"

    parts = re.split(r"(^ *```.*?^ *```$)", markdown, flags=re.MULTILINE | re.DOTALL)  # code stays as it is
    return "".join(part if number % 2 else _LINK.sub(changed, part) for number, part in enumerate(parts))


def notebook_page(notebook: dict[str, Any]) -> str:
    """A notebook with its outputs as Markdown."""
    parts = []
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if "image/jpeg" in data:
                picture = "".join(data["image/jpeg"]).replace("\n", "")
                parts.append(f'<img alt="Output of the cell above" src="data:image/jpeg;base64,{picture}">')
            elif text := "".join(data.get("text/plain", output.get("text", ""))).rstrip():
                parts.append(f"```text\n{text}\n```")
    parts.append("This page is a notebook: [notebook.ipynb](notebook.ipynb).")
    return "\n\n".join(parts) + "\n"


def command_line_page() -> str:
    """The commands of `inreach` with their options, from its parser."""
    from inreach_fast.cli import exit_codes
    from inreach_fast.cli.main import build_parser

    parser = build_parser()
    (commands,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    words = {action.dest: action.help for action in commands._choices_actions}
    lines = ["# Command line", "", "| command | |", "|---|---|"]
    lines += [f"| [`inreach {name}`](#inreach-{name}) | {words[name]} |" for name in commands.choices]
    lines += ["", "```text", exit_codes.DESCRIPTION.strip(), "```", ""]
    for name, options in commands.choices.items():
        lines += [
            f"## inreach {name}",
            "",
            _plain(options.description or ""),
            "",
            f"```text\n{_usage(options)}\n```",
            "",
        ]
        for group in options._action_groups:
            rows = [f"| {_option(action)} | {_plain(_help(action))} |" for action in group._group_actions]
            if rows:
                lines += [f"**{group.title}**", "", "| option | |", "|---|---|", *rows, ""]
    return "\n".join(lines)


def _usage(options: argparse.ArgumentParser) -> str:
    needed = [action.metavar or action.dest for action in options._actions if not action.option_strings]
    many = {action.metavar or action.dest: "..." for action in options._actions if action.nargs in ("+", "*")}
    named = [f"{name}{many.get(name, '')}" for name in map(str, needed)]
    return " ".join([options.prog, *named, "[options]"])


def _option(action: argparse.Action) -> str:
    value = action.metavar or ("|".join(map(str, action.choices)) if action.choices else "")
    if isinstance(value, tuple):
        value = " ".join(value)
    takes = action.nargs != 0 and not isinstance(action, argparse.BooleanOptionalAction)
    names = [f"`{name}`" for name in action.option_strings]
    shown = f" `{value or action.dest.upper()}`" if takes else ""
    return (", ".join(names) + shown if names else f"`{value or action.dest}`").replace("|", "\\|")


def _help(action: argparse.Action) -> str:
    words = action.help or ""
    return words % {**vars(action), "prog": "inreach"} if "%(" in words else words.replace("%%", "%")


def _plain(words: str) -> str:
    """One line, in which nothing is markup."""
    line = " ".join(words.split())
    return re.sub(r"([*_<>\[\]|])", r"\\\1", line) if "`" not in line else _outside_code(line)


def _outside_code(line: str) -> str:
    parts = line.split("`")
    return "`".join(part if i % 2 else re.sub(r"([*_<>\[\]|])", r"\\\1", part) for i, part in enumerate(parts))
