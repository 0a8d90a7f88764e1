"""Models that several criteria sample."""

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from difftool.bundle import Bundle


@pytest.fixture(scope="session")
def scripted(tmp_path_factory: pytest.TempPathFactory) -> "Callable[[str], Bundle]":
    """A shipped model by name, with a step.ts."""
    from tests.reliability.backends import shipped_with_torchscript

    folder = tmp_path_factory.mktemp("scripted")
    return functools.cache(lambda name: shipped_with_torchscript(name, folder))
