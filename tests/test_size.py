"""The packages of a server stay small: what `pip install 'difftool[cpu,serve]'` brings."""

from importlib.metadata import distribution
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import difftool

MOST: Final = 300 * 10**6  # bytes


def needed(asked: Requirement, found: set[str]) -> None:
    """Add the packages that a requirement installs here to those that were found."""
    dist = distribution(asked.name)
    found.add(canonicalize_name(asked.name))
    for line in dist.requires or ():
        each = Requirement(line)
        extras = asked.extras or {""}
        wanted = each.marker is None or any(each.marker.evaluate({"extra": e}) for e in extras)
        if wanted and (each.extras or canonicalize_name(each.name) not in found):
            needed(each, found)


def test_a_server_takes_less_than_300_mb() -> None:
    found: set[str] = set()
    needed(Requirement("difftool[cpu,serve]"), found)
    assert {"onnxruntime", "numpy", "starlette", "uvicorn", "pydantic-core"} <= found
    assert not {"torch", "onnx", "openvino", "fastapi"} & found
    files = [file for name in found for file in distribution(name).files or ()]
    paths = {Path(str(file.locate())) for file in files}
    paths |= set(Path(difftool.__file__).parent.rglob("*"))  # also if it was not copied
    assert sum(path.stat().st_size for path in paths if path.is_file()) < MOST
