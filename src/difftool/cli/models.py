"""difftool models: list the models on this machine."""

from typing import Any

from difftool.cli import options
from difftool.cli.console import report

EXAMPLES = """\b
Examples:
  difftool models
  difftool models --json
"""


def models(json: options.Json = False) -> None:
    """List the shipped models, and those fetched from the hub.

    Sample a shipped model by its name. Import or export one from the hub by its id.
    """
    from difftool.bundle import PRECISIONS, step_name
    from difftool.runtime import open_bundle, shipped_models

    shipped: dict[str, Any] = {}
    for name in shipped_models():
        bundle = open_bundle(name)
        files = bundle.manifest.files
        shipped[name] = {
            "shape": list(bundle.spec.shape),
            "program": bundle.default_program().name,
            "precisions": [word for word in PRECISIONS if step_name(word) in files],
            "bytes": sum(entry.size for entry in files.values()),
        }
    report({"shipped": shipped, "cached": _cached()}, as_json=json)


def _cached() -> dict[str, Any]:
    """Return the models in the hub's cache that difftool import reads; none without its library."""
    try:
        from difftool.importers import cached

        models = cached()
    except ImportError:
        return {}
    return {
        f"{origin.id}@{origin.revision[:12]}": {
            "files": sorted(sizes),
            "bytes": sum(sizes.values()),
        }
        for origin, sizes in models
    }
