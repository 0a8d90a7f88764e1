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
    """List the samplers with their arguments and sources.

    Each argument is listed with its type and default. An argument without a default gets a value
    that suits the model. --steps and --eta set the arguments steps and eta; --arg sets any.
    """
    from difftool.diffusion import SAMPLERS, describe_sampler, sampler_named

    chosen = SAMPLERS if name is None else {name: sampler_named(name)}
    found = {each: describe_sampler(function) for each, function in chosen.items()}
    if json:
        report(found, as_json=True)
        return
    report({each: _lines(record) for each, record in found.items()}, as_json=False)
    if name is not None:
        print(f"\n{found[name]['description']}")


def _lines(record: dict[str, Any]) -> dict[str, str]:
    """Return a sampler's record with each argument in words; defaults look as --arg takes them."""
    lines = {"source": record["source"]}
    for name, argument in record["arguments"].items():
        kind, default = argument["type"], argument["default"]
        value = default if isinstance(default, str) else json_.dumps(default)
        lines[name] = kind if default is None else f"{kind}, {value} by default"
    return lines
