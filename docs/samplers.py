"""Write the table of samplers in docs/sampling.md, from their signatures and docstrings.

python docs/samplers.py
"""

import json
import re
from pathlib import Path
from typing import Any

from difftool.diffusion import SAMPLERS, describe_sampler

PAGE = Path(__file__).resolve().parent / "sampling.md"
HEAD = "| sampler | arguments other than `steps`, with their defaults | source |\n|---|---|---|\n"


def renewed(page: str) -> str:
    """Return the page with the table as it should be."""
    rows = "".join(map(_row, SAMPLERS))
    return re.sub(re.escape(HEAD) + r"(\|.*\n)*", lambda _: HEAD + rows, page)


def _row(name: str) -> str:
    record = describe_sampler(SAMPLERS[name])
    taken = [_argument(*item) for item in record["arguments"].items() if item[0] != "steps"]
    return f"| `{name}` | {', '.join(taken)} | {record['source']} |\n"


def _argument(name: str, argument: dict[str, Any]) -> str:
    default = argument["default"]
    if default is None:
        return f"`{name}`"
    return f"`{name}={default if isinstance(default, str) else json.dumps(default)}`"


if __name__ == "__main__":
    PAGE.write_text(renewed(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
