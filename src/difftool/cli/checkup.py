"""The doctor's report for people: a table of the backends, what to do, and a verdict."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from difftool.cli.faults import in_options

if TYPE_CHECKING:
    from difftool.runtime import BackendEntry

_HEADS: Final = ("backend", "version", "state", "a step")


def checkup(record: Mapping[str, Any], rows: "Mapping[str, BackendEntry]") -> list[str]:
    """Return the lines for a record of `difftool doctor`, and the table of its backends."""
    machine, versions = record["machine"], record["versions"]
    lines = [
        f"difftool {versions['difftool']}, Python {versions['python']}, {machine['platform']}, "
        f"{machine['usable_cores']} of {machine['cores']} cores",
        *(f"NVIDIA's driver is too old: {old}" for old in [machine.get("nvidia_driver")] if old),
        "",
    ]
    backends = record["backends"]
    table = [_row(name, found, rows[name], versions) for name, found in backends.items()]
    lines += [*_laid_out([_HEADS, *table]), ""] if table else []
    lines += _what_to_do(backends, rows)
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
    name: str, found: Mapping[str, Any], row: "BackendEntry", versions: Mapping[str, str | None]
) -> tuple[str, ...]:
    # The backend's own package comes first; TensorRT has two names, of which either will do.
    own = next(iter(row.packages), name).partition("-")[0]
    packages = [package for package in row.packages if package.partition("-")[0] == own]
    version = next(filter(None, map(versions.get, packages)), "-")
    step = "-" if found["step_ms"] is None else f"{found['step_ms']:.1f} ms"
    return name, version, _state(found, row), step


def _state(found: Mapping[str, Any], row: "BackendEntry") -> str:
    if found["state"] in ("works", "broken"):
        return str(found["state"])
    return "by name" if row.untried else "not here"


def _what_to_do(
    backends: Mapping[str, Mapping[str, Any]], rows: "Mapping[str, BackendEntry]"
) -> list[str]:
    """Return what would bring the backends that are not here, and why some are taken by name only.

    The lines are not wrapped, so that the commands in them can be copied.
    """
    lines = []
    states = {name: _state(found, rows[name]) for name, found in backends.items()}
    width = max(map(len, backends), default=0)
    for state, head in (
        ("by name", "by name (--backend NAME), and not tried here:"),
        ("not here", "not here:"),
    ):
        names = [name for name, each in states.items() if each == state]
        said = {
            name: f"it {rows[name].untried}" if state == "by name" else str(backends[name]["state"])
            for name in names
        }
        lines += [head] if names else []
        lines += [f"  {name:<{width}}  {in_options(text)}" for name, text in said.items()]
    return [*lines, ""] if lines else []


def _laid_out(table: list[tuple[str, ...]]) -> list[str]:
    """Return the lines of a table."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in table
    ]
