"""The doctor's report for people: a table of the backends, and a verdict."""

import shutil
import textwrap
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from difftool.cli.faults import in_options

if TYPE_CHECKING:
    from difftool.runtime import BackendEntry

_HEADS: Final = ("backend", "version", "state", "a step", "what to do")
_NARROW: Final = 24  # characters that the last column has at least


def checkup(record: Mapping[str, Any], rows: "Mapping[str, BackendEntry]") -> list[str]:
    """Return the lines for a record of `difftool doctor`, and the table of its backends."""
    machine, versions = record["machine"], record["versions"]
    lines = [
        f"difftool {versions['difftool']}, Python {versions['python']}, {machine['platform']}, "
        f"{machine['usable_cores']} of {machine['cores']} cores",
        *(f"NVIDIA's driver is too old: {old}" for old in [machine.get("nvidia_driver")] if old),
        "",
    ]
    table = [
        _row(name, found, name == record["chosen"], rows[name], versions)
        for name, found in record["backends"].items()
    ]
    lines += [*_laid_out([_HEADS, *table]), ""] if table else []
    models = [f"{name} ({each['bytes'] / 1e6:.1f} MB)" for name, each in record["models"].items()]
    lines.append(f"models: {', '.join(models) or 'none'}")
    lines.append(f"training: {_training(record['torch'])}")
    if record["problems"]:
        lines += [f"problem: {in_options(problem)}" for problem in record["problems"]]
    else:
        lines.append(f"nothing is broken; fp32 runs on {record['chosen']} by default")
    return lines


def _training(torch: Mapping[str, Any]) -> str:
    if torch["state"] != "works":
        return f"PyTorch is {torch['state']}"
    return f"PyTorch {torch['version']} works on {'a GPU' if torch['device'] == 'cuda' else 'CPU'}"


def _row(
    name: str,
    found: Mapping[str, Any],
    chosen: bool,
    row: "BackendEntry",
    versions: Mapping[str, str | None],
) -> tuple[str, ...]:
    # The backend's own package comes first; TensorRT has two names, of which either will do.
    own = next(iter(row.packages), name).partition("-")[0]
    packages = [package for package in row.packages if package.partition("-")[0] == own]
    version = next(filter(None, map(versions.get, packages)), "-")
    said = in_options(str(found["state"]))
    step = "-" if found["step_ms"] is None else f"{found['step_ms']:.1f} ms"
    match found["state"]:
        case "works":
            todo = "nothing: it is taken by default" if chosen else f"take it: --backend {name}"
            return name, version, "works", step, todo
        case "broken":
            return name, version, "broken", step, "see the problem below"
    state = "by name" if row.untried else "not here"
    return name, version, state, step, said.removeprefix("only by name, ")


def _laid_out(table: list[tuple[str, ...]]) -> list[str]:
    """Return the lines of a table whose last column is wrapped to the terminal's width."""
    widths = [max(map(len, column)) for column in list(zip(*table, strict=True))[:-1]]
    indent = sum(widths) + 2 * len(widths)
    room = max(_NARROW, shutil.get_terminal_size().columns - indent)
    lines = []
    for *cells, last in table:
        first, *more = textwrap.wrap(
            last, room, break_long_words=False, break_on_hyphens=False
        ) or [""]
        padded = [f"{cell:<{width}}  " for cell, width in zip(cells, widths, strict=True)]
        lines += ["".join([*padded, first]).rstrip(), *(" " * indent + part for part in more)]
    return lines
