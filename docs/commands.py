"""Write docs/commands/: one page for each command, from the help that the command itself prints.

python docs/commands.py
"""

import inspect
import re
from pathlib import Path
from typing import Any, Final

from typer.main import get_command

from difftool.cli.app import app
from difftool.cli.grouped import EVERYWHERE

FOLDER: Final = Path(__file__).resolve().parent / "commands"
_NOTE: Final = "*This page is written by `python docs/commands.py`.*"


def pages() -> dict[str, str]:
    """Return each page by its name: the commands in the order of the help, and then the index."""
    root: Any = get_command(app)
    found = {f"{name}.md": _page(name, command) for name, command in root.commands.items()}
    return {**found, "README.md": _index(root)}


def main() -> None:
    """Write all pages, and remove those of commands that are gone."""
    FOLDER.mkdir(exist_ok=True)
    written = pages()
    for file in FOLDER.glob("*.md"):
        if file.name not in written:
            file.unlink()
    for name, text in written.items():
        (FOLDER / name).write_text(text, encoding="utf-8")


def _index(root: Any) -> str:
    lines = ["# Commands", "", _NOTE, "", *_prose(root), "Every command takes these, too:", ""]
    context = root.make_context("difftool", [], resilient_parsing=True)
    shared = [each for each in root.get_params(context) if _group(each) == EVERYWHERE]
    lines += [*_table(root, shared), ""]
    for name, command in root.commands.items():
        lines.append(f"- [{name}]({name}.md): {_cell(_summary(command))}")
    return _joined([*lines, "", *_after(root)])


def _page(name: str, command: Any) -> str:
    lines = [f"# `difftool {name}`", "", _NOTE, ""]
    inner = getattr(command, "commands", None)
    if inner is None:
        return _joined([*lines, *_command(name, command, "##")])
    lines += [*_prose(command), *_after(command)]
    for each, found in inner.items():
        lines += [f"## `difftool {name} {each}`", "", *_command(f"{name} {each}", found, "###")]
    return _joined(lines)


def _command(name: str, command: Any, level: str) -> list[str]:
    """Return what the help says: the usage, the text, a table for each group, the examples."""
    context = command.make_context(name, [], resilient_parsing=True)
    usage = " ".join(command.collect_usage_pieces(context))
    lines = [*_prose(command), "```text", f"difftool {name} {usage}", "```", ""]
    groups: dict[str, list[Any]] = {"Arguments": [], "Options": []}
    for parameter in command.get_params(context):
        groups.setdefault(_group(parameter), []).append(parameter)
    for title, parameters in groups.items():
        if parameters and title != EVERYWHERE:
            lines += [f"{level} {title}", "", *_table(command, parameters), ""]
    return [*lines, *_after(command)]


def _group(parameter: Any) -> str:
    if parameter.name == "help":
        return EVERYWHERE
    if parameter.param_type_name == "argument":
        return "Arguments"
    return parameter.rich_help_panel or "Options"


def _table(command: Any, parameters: list[Any]) -> list[str]:
    context = command.make_context("", [], resilient_parsing=True)
    records = [parameter.get_help_record(context) for parameter in parameters]
    rows = [
        f"| `{_cell(record[0], code=True)}` | {_cell(record[1])} |"
        for record in records
        if record is not None
    ]
    return ["| | |", "|---|---|", *rows]


def _prose(command: Any) -> list[str]:
    lines = []
    for paragraph in inspect.cleandoc(command.help).split("\n\n"):
        lines += [_cell(" ".join(paragraph.split())), ""]
    return lines


def _after(command: Any) -> list[str]:
    """Return what stands below the options: the examples as text, or else paragraphs."""
    text = (command.epilog or "").replace("\b\n", "").strip()
    if not text.startswith("Examples:"):
        return [text, ""]
    examples = [line.strip() for line in text.splitlines()[1:]]
    return ["Examples:", "", "```text", *examples, "```", ""]


def _summary(command: Any) -> str:
    return str(inspect.cleandoc(command.help).partition("\n")[0])


def _cell(text: str, *, code: bool = False) -> str:
    """Return text that Markdown, in a table or not, shows as it is."""
    text = " ".join(text.split()).replace("|", "\\|")
    return text if code else re.sub(r"[<*]", r"\\\g<0>", text)


def _joined(lines: list[str]) -> str:
    text = "\n".join(line.rstrip() for line in lines)
    return re.sub(r"\n{3,}", "\n\n", text).rstrip() + "\n"


if __name__ == "__main__":
    main()
