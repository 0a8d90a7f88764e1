"""Node, Chromium and what npm installs. A test names the one that is missing; CI has all."""

import os
import shutil
from pathlib import Path
from typing import NoReturn

import pytest

MODULES = Path(__file__).resolve().parents[2] / "examples" / "node_modules"


@pytest.fixture(scope="session")
def node() -> str:
    """The path of Node."""
    return shutil.which("node") or _absent("needs Node: apt-get install nodejs npm")


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of Chromium."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    return found or _absent("needs Chromium: apt-get install chromium")


@pytest.fixture(scope="session")
def modules() -> Path:
    """The folder of onnxruntime-web and playwright-core."""
    needed = ("onnxruntime-web", "playwright-core")
    if not all((MODULES / name / "package.json").is_file() for name in needed):
        _absent("needs onnxruntime-web and playwright-core: npm install --prefix examples")
    return MODULES


def _absent(what: str) -> NoReturn:
    (pytest.fail if os.environ.get("CI") else pytest.skip)(what)
    raise AssertionError
