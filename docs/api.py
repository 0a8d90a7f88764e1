"""Write docs/api/: one page for each door, from its signatures and docstrings.

python docs/api.py

griffe reads the sources without importing them, so that no library of a room has to be installed.
"""

import re
from pathlib import Path
from typing import Final

import griffe

ROOT: Final = Path(__file__).resolve().parents[1]
FOLDER: Final = ROOT / "docs" / "api"
DOORS: Final = (
    "difftool",
    "difftool.train",
    "difftool.importers",
    "difftool.export",
    "difftool.compile",
    "difftool.verify",
    "difftool.evaluate",
    "difftool.plot",
    "difftool.data",
    "difftool.runtime",
    "difftool.serve",
    "difftool.scale",
    "difftool.diffusion",
)
_LINE: Final = 88  # a signature that is longer has a line for each parameter
_LONGEST: Final = 60  # a value that is longer is not shown
_NOTE: Final = "*This page is written by `python docs/api.py`.*"


def pages() -> dict[str, str]:
    """Return each page by its name, in the order of DOORS, and then the index."""
    package = griffe.load(
        "difftool",
        search_paths=[ROOT / "src"],
        docstring_parser="google",
        resolve_aliases=True,
        allow_inspection=False,
    )
    doors = {name: _door(package, name) for name in DOORS}
    found = {f"{name}.md": _page(name, door) for name, door in doors.items()}
    return {**found, "README.md": _index(doors)}


def main() -> None:
    """Write all pages, and remove those of doors that are gone."""
    FOLDER.mkdir(exist_ok=True)
    written = pages()
    for file in FOLDER.glob("*.md"):
        if file.name not in written:
            file.unlink()
    for name, text in written.items():
        (FOLDER / name).write_text(text, encoding="utf-8")


def members(door: griffe.Module) -> dict[str, griffe.Object | griffe.Alias]:
    """Return what a door lists in `__all__`, by name."""
    return {str(name): door[str(name)] for name in door.exports or ()}


def _door(package: griffe.Object | griffe.Alias, name: str) -> griffe.Module:
    found = package[name.partition(".")[2]] if "." in name else package
    assert isinstance(found, griffe.Module), name
    return found


def _index(doors: dict[str, griffe.Module]) -> str:
    lines = ["# API reference", "", _NOTE, "", "What a Python program may use of difftool.", ""]
    for name, door in doors.items():
        lines += [f"- [`{name}`]({name}.md): {_first(door)}"]
    return "\n".join(lines) + "\n"


def _page(name: str, door: griffe.Module) -> str:
    listed = members(door)
    lines = [f"# `{name}`", "", _NOTE, "", *_prose(door), ""]
    lines += [f"- [`{each}`](#{each.lower()}): {_first(found)}" for each, found in listed.items()]
    for each, found in listed.items():
        lines += ["", f"## `{each}`", "", *_member(f"{name}.{each}", found)]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines).rstrip()) + "\n"


def _member(path: str, found: griffe.Object | griffe.Alias) -> list[str]:
    if found.is_function:
        return [*_signature(path, found), *_prose(found)]
    if found.is_class:
        return _class(path, found)
    if found.is_module:
        return [*_prose(found), "", f"A module of its own: `import {found.path}`."]
    value = str(getattr(found, "value", None))
    # A table, such as that of samplers, grows with every addition; its own file shows it.
    shown = value if len(value) <= _LONGEST else "..."
    return [*_code(f"{path} = {shown}"), *_prose(found)]


def _class(path: str, found: griffe.Object | griffe.Alias) -> list[str]:
    lines = [*_signature(path, found), *_prose(found)]
    for name, member in found.members.items():
        if member.is_attribute and "property" not in member.labels and member.docstring is not None:
            lines += [f"- `{name}`: {_joined(member.docstring.value)}"]
    for name, member in found.members.items():
        if name.startswith("_") or not (member.is_function or "property" in member.labels):
            continue
        lines += ["", f"### `{name}`", ""]
        if member.is_function:
            lines += _signature(name, member)
        lines += _prose(member)
    return lines


def _signature(path: str, found: griffe.Object | griffe.Alias) -> list[str]:
    """Return a call as code: on one line, or with a line for each parameter."""
    given = [each for each in _parameters(found) if each.name not in ("self", "cls")]
    words, starred = [], False
    for each in given:
        if each.kind is griffe.ParameterKind.keyword_only and not starred:
            words.append("*")
            starred = True
        kind = "" if each.annotation is None else f": {each.annotation}"
        default = "" if each.default is None else f" = {each.default}"
        stars = {"variadic positional": "*", "variadic keyword": "**"}
        words.append(f"{stars.get(str(each.kind.value), '')}{each.name}{kind}{default}")
    returns = getattr(found, "returns", None)
    end = f") -> {returns}" if returns is not None and found.is_function else ")"
    line = f"{path}({', '.join(words)}{end}"
    if len(line) <= _LINE:
        return _code(line)
    return _code(f"{path}(", *(f"    {word}," for word in words), end)


def _parameters(found: griffe.Object | griffe.Alias) -> griffe.Parameters:
    """Return the parameters of a call; of a method that takes a request, those of `Request`."""
    decorators = getattr(found, "decorators", ())
    if any(str(each.value) == "takes_request(Request)" for each in decorators):
        return found.package["runtime.request.Request"].parameters
    return found.parameters


def _code(*lines: str) -> list[str]:
    return ["```python", *lines, "```", ""]


def _prose(found: griffe.Object | griffe.Alias) -> list[str]:
    """Return a docstring: its text, arguments, errors and examples."""
    if found.docstring is None:
        return []
    lines: list[str] = []
    for section in found.docstring.parsed:
        match section.kind:
            case griffe.DocstringSectionKind.text:
                lines += [section.value, ""]
            case griffe.DocstringSectionKind.parameters:
                lines += ["Arguments:", ""]
                lines += [f"- `{each.name}`: {_joined(each.description)}" for each in section.value]
                lines += [""]
            case griffe.DocstringSectionKind.raises:
                lines += ["Raises:", ""]
                lines += [
                    f"- `{each.annotation}`: {_joined(each.description)}" for each in section.value
                ]
                lines += [""]
            case griffe.DocstringSectionKind.examples:
                code = [text for kind, text in section.value]
                lines += ["Example:", "", *_code(*"\n".join(code).splitlines())]
            case kind:
                raise ValueError(f"{found.path}: no layout for a section of {kind.value}")
    return lines


def _first(found: griffe.Object | griffe.Alias) -> str:
    """Return the first sentence of a docstring, on one line."""
    if found.docstring is None:
        return ""
    return _joined(found.docstring.value.split("\n\n")[0])


def _joined(text: str) -> str:
    return " ".join(text.split())


if __name__ == "__main__":
    main()
