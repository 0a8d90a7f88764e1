"""What a sampler takes, from its signature and docstring."""

import inspect
import re
from collections.abc import Callable
from typing import Any, Final, get_type_hints

from difftool.diffusion.calls import type_name

# The first parenthesis that names a year: "(Song et al. 2021a, eq. 12)".
_SOURCE: Final = re.compile(r"\(([^()]+ \d{4}[^()]*)\)")


def describe_sampler(sampler: Callable[..., Any]) -> dict[str, Any]:
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
