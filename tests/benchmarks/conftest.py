"""The benchmarks are scripts that find what they share beside themselves."""

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))


@pytest.fixture(scope="session")
def prepared(
    tiny_checkpoint: Path, tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> Any:
    """The tiny model as a benchmark prepares its models."""
    from common.models import TINY, Setting

    from difftool.bundle import read_bundle
    from difftool.networks.trained import load_checkpoint

    work = tmp_path_factory.mktemp("plain")
    return Setting(TINY, load_checkpoint(tiny_checkpoint), read_bundle(tiny_bundle), work)
