"""How much room installed packages take, with all that they require."""

import importlib.metadata
import re
from collections.abc import Iterable
from importlib.metadata import Distribution, PackageNotFoundError

from packaging.requirements import Requirement


def installed_megabytes(names: Iterable[str]) -> float | None:
    """MB of packages and of everything that they require; None where one of them is missing."""
    found: dict[str, Distribution] = {}
    waiting = list(names)
    try:
        for name in waiting:
            importlib.metadata.distribution(name)
    except PackageNotFoundError:
        return None
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in found:
            continue
        try:
            found[name] = importlib.metadata.distribution(name)
        except PackageNotFoundError:  # what another platform needs, say
            continue
        waiting += [
            text.name for text in map(Requirement, found[name].requires or ()) if _taken(text)
        ]
    return sum(map(_bytes, found.values())) / 1e6


def _taken(requirement: Requirement) -> bool:
    """Whether it is required here, without extras."""
    return requirement.marker is None or requirement.marker.evaluate({"extra": ""})


def _bytes(distribution: Distribution) -> int:
    return sum(file.size or 0 for file in distribution.files or ())
