"""Models that several criteria sample."""

import functools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from difftool.bundle import Bundle
    from tests.fixtures import MakeOnce


@pytest.fixture(scope="session")
def scripted(tmp_path_factory: pytest.TempPathFactory) -> "Callable[[str], Bundle]":
    """A shipped model by name, with a step.ts."""
    from tests.reliability.backends import shipped_with_torchscript

    folder = tmp_path_factory.mktemp("scripted")
    return functools.cache(lambda name: shipped_with_torchscript(name, folder))


@pytest.fixture(scope="session")
def guided(made_once: "MakeOnce") -> "Bundle":
    """A model of 7 x 5 pixels with classes, guidance, known values and a step.ts."""
    from difftool.diffusion.calls import SamplerCall
    from difftool.diffusion.features import Feature
    from tests import fixtures
    from tests.reliability.backends import with_torchscript

    def make(folder: Path) -> None:
        spec = replace(fixtures.CLASSES_SPEC, shape=(1, 7, 5))
        arguments = {**fixtures.CLASSES_NETWORK.arguments, "channels": 4, "groups": 2}
        network = replace(fixtures.CLASSES_NETWORK, arguments=arguments)
        run = fixtures.save_model(folder / "run", spec, network, SamplerCall("ddpm"))
        fixtures.export_model(run, folder / "bundle", (Feature.GUIDANCE, Feature.KNOWN))

    folder = made_once("guided", make)
    return with_torchscript(folder / "bundle", folder / "run")
