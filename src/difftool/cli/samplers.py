"""difftool samplers: list the samplers, their arguments and their sources."""

import json as json_
from typing import Annotated, Any

from typer import Argument

from difftool.cli import options
from difftool.cli.console import report

EXAMPLES = """\b
Examples:
  difftool samplers
  difftool samplers heun
  difftool samplers --json
"""


def samplers(
    name: Annotated[
        str | None, Argument(metavar="NAME", help="Show this sampler only, with its description.")
    ] = None,
    json: options.Json = False,
) -> None:
    """List the samplers as one calls them, with their sources.

    An argument without a value here gets one that suits the model. --steps and --eta set the
    arguments steps and eta; --arg sets any. With a NAME, also the types of its arguments and what
    it does.
    """
    from difftool.diffusion import SAMPLERS, describe_sampler, sampler_named

    chosen = SAMPLERS if name is None else {name: sampler_named(name)}
    found = {each: describe_sampler(function) for each, function in chosen.items()}
    if json:
        report(found, as_json=True)
    elif name is None:
        print(
            "\n".join(
                f"{_call(each, record)}\n    {record['source']}" for each, record in found.items()
            )
        )
    else:
        report({name: _lines(found[name])}, as_json=False)
        print(f"\n{found[name]['description']}")


def _call(name: str, record: dict[str, Any]) -> str:
    """Return a sampler with its arguments, and the defaults of those that have one."""
    arguments = record["arguments"].items()
    written = [
        key if each["default"] is None else f"{key}={_value(each['default'])}"
        for key, each in arguments
    ]
    return f"{name}({', '.join(written)})"


def _lines(record: dict[str, Any]) -> dict[str, str]:
    """Return a sampler's record with each argument in words."""
    lines = {"source": record["source"]}
    for name, argument in record["arguments"].items():
        kind, default = argument["type"], argument["default"]
        lines[name] = kind if default is None else f"{kind}, {_value(default)} by default"
    return lines


def _value(default: object) -> str:
    """Return a default as --arg takes it."""
    return default if isinstance(default, str) else json_.dumps(default)
