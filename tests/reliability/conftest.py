"""Models that several criteria sample."""

import functools
from collections.abc import Callable

import pytest

from difftool.bundle import Bundle
from tests.reliability.backends import shipped_with_torchscript


@pytest.fixture(scope="session")
def scripted(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Bundle]:
    """A shipped model by name, with a step.ts."""
    folder = tmp_path_factory.mktemp("scripted")
    return functools.cache(lambda name: shipped_with_torchscript(name, folder))
