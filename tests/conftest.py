"""The base of every test: repeatable examples, no network, and the shared data if it is there."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.extractors import make_extractor  # noqa: F401
from tests.fixtures import (  # noqa: F401
    classes_bundle,
    classes_checkpoint,
    featured_bundle,
    made_once,
    packaged_bundle,
    points_bundle,
    points_checkpoint,
    tiny_bundle,
    tiny_checkpoint,
    toy_recipe,
)
from tests.recipes import images_config, points_config  # noqa: F401
from tests.reliability.criteria import (  # noqa: F401
    cases,
    nightly,
    note,
    pytest_addoption,
    pytest_collection_modifyitems,
    pytest_configure,
    pytest_terminal_summary,
)

# Read when the libraries are imported, which is after this file.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
os.environ["HF_DATASETS_DISABLE_PROGRESS_BARS"] = "1"
for waiting in ("HF_HUB_ETAG_TIMEOUT", "HF_HUB_DOWNLOAD_TIMEOUT"):
    os.environ[waiting] = "500"  # seconds; a loaded machine may be slow to answer itself

# Neither an example nor drawing it fails for being slow.
settings.register_profile(
    "repeatable",
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("repeatable")

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session", autouse=True)
def engine_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep the engines that tests build away from the user's own."""
    os.environ["DIFFTOOL_CACHE"] = str(tmp_path_factory.mktemp("engines") / "cache")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of data and golden values beside the checkout; CI must have it."""
    if not SHARED.is_dir():
        absent = pytest.fail if os.environ.get("CI") else pytest.skip
        absent(f"needs the shared data folder at {SHARED}")
    return SHARED
