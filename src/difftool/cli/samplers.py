"""difftool samplers: list the samplers, their arguments and their sources."""

import inspect
import json as json_
import re
from collections.abc import Callable
from typing import Annotated, Any, get_type_hints

from typer import Argument

from difftool.cli import options
from difftool.cli.console import report
from difftool.diffusion import type_name

EXAMPLES = """\b
Examples:
  difftool samplers
  difftool samplers heun
  difftool samplers --json
"""

# The first parenthesis that names a year: "(Song et al. 2021a, eq. 12)".
_SOURCE = re.compile(r"\(([^()]+ \d{4}[^()]*)\)")


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
    from difftool.diffusion import SAMPLERS, sampler_named

    chosen = SAMPLERS if name is None else {name: sampler_named(name)}
    found = {each: described(function) for each, function in chosen.items()}
    if json:
        report(found, as_json=True)
        return
    report({each: _lines(record) for each, record in found.items()}, as_json=False)
    if name is not None:
        print(f"\n{found[name]['description']}")


def described(sampler: Callable[..., Any]) -> dict[str, Any]:
    """Return a sampler's source, arguments and description, from its signature and docstring."""
    (_, *parameters) = inspect.signature(sampler).parameters.values()
    kinds = get_type_hints(sampler)
    description = inspect.getdoc(sampler) or ""
    source = _SOURCE.search(" ".join(description.split()))
    return {
        "source": source[1] if source else None,
        "arguments": {
            parameter.name: {
                "type": type_name(kinds[parameter.name]).removesuffix(" or none"),
                "default": parameter.default,
            }
            for parameter in parameters
        },
        "description": description,
    }


def _lines(record: dict[str, Any]) -> dict[str, str]:
    """Return a sampler's record with each argument in words; defaults look as --arg takes them."""
    lines = {"source": record["source"]}
    for name, argument in record["arguments"].items():
        kind, default = argument["type"], argument["default"]
        value = default if isinstance(default, str) else json_.dumps(default)
        lines[name] = kind if default is None else f"{kind}, {value} by default"
    return lines
