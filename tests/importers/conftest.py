"""Files to import: the golden ones, and what is made of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from difftool.importers import find
from difftool.importers.format import Imported


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Path]:
    """Write content by torch.save, alone in a folder, perhaps with a configuration beside it."""

    def write(content: Any, config: str = "", name: str = "weights") -> Path:
        folder = tmp_path / "source"
        folder.mkdir(exist_ok=True)
        torch.save(content, folder / name)
        if config:
            (folder / "config.yml").write_text(config)
        return folder / name

    return write


def read(path: Path, **said: object) -> Imported:
    """Import from a path, with what is said of it."""
    return find(path).read({name: str(value) for name, value in said.items()})
