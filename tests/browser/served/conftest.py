"""The page of difftool serve in a browser, and models whose steps a test lets go."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import difftool
from difftool.runtime.model import Model
from tests.browser.served.looking import DESK, OpenTab
from tests.browser.tabs import Browser, Tab, served
from tests.serve.conftest import Gate

pytest.importorskip("starlette")

from difftool.serve import Application, ServeSettings


@pytest.fixture(scope="package")
def browser(node: str, chromium: str, modules: Path) -> Iterator[Browser]:
    found = Browser(node, chromium, modules)
    yield found
    found.end()


@pytest.fixture(scope="package")
def digits() -> Model:
    return difftool.load("ddpm-mnist", max_batch=8, threads=1)


@pytest.fixture
def gate(digits: Model) -> Iterator[Gate]:
    found = Gate(digits.backend)
    yield found
    found.open()


@pytest.fixture
def gated(digits: Model, gate: Gate) -> Model:
    """As `digits`, but its steps wait at the gate."""
    return Model(digits.bundle, gate, max_batch=8)


@pytest.fixture
def open_tab(browser: Browser) -> OpenTab:
    """Serve models by their names, and open the page."""

    @contextmanager
    def open(
        settings: ServeSettings | None = None, *, wait: bool = True, **given: Any
    ) -> Iterator[Tab]:
        models = {name: given.pop(name) for name in [*given] if isinstance(given[name], Model)}
        application = Application({k.replace("_", "-"): v for k, v in models.items()}, settings)
        with served(application) as url, browser.tab(url, **{**DESK, **given}) as tab:
            if wait:
                tab.until("document.body.dataset.state === 'ready'")
            yield tab

    return open
