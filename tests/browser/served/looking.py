"""What tests do with the page of difftool serve: save, copy, draw again, and look for faults."""

import base64
import io
import os
import shlex
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import difftool
from difftool.cli import main
from difftool.runtime.images import grid
from difftool.runtime.model import Model
from tests.browser.tabs import Tab

DESK = {"viewport": {"width": 1280, "height": 860}}
PHONE = {"viewport": {"width": 390, "height": 844}, "hasTouch": True, "isMobile": True}
SIZES = pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
OpenTab = Callable[..., AbstractContextManager[Tab]]


def keep(tab: Tab, name: str) -> None:
    """Make a picture of the page for the documentation, if somebody asks for it."""
    if folder := os.environ.get("KEEP_PAGE"):
        tab("await page.mouse.move(0, 0); await page.screenshot({ path })", path=f"{folder}/{name}")


def pixels(png: str | bytes) -> Any:
    data = base64.b64decode(png) if isinstance(png, str) else png
    return np.asarray(Image.open(io.BytesIO(data)).convert("L"))


def saved(tab: Tab, place: str = ".save") -> tuple[str, bytes]:
    """Press what saves something; returns the file's name and content."""
    found = tab(
        """
        const [file] = await Promise.all([page.waitForEvent("download"), page.click(place)]);
        const content = await readFile(await file.path(), "base64");
        return [file.suggestedFilename(), content];
        """,
        place=place,
    )
    return found[0], base64.b64decode(found[1])


def copied(tab: Tab, what: str) -> str:
    """Open what draws the same again, copy the command or the Python, and return it."""
    tab("await page.locator('.again').first().evaluate((element) => (element.open = true))")
    tab(f"await page.locator('.code:has(.{what}) button').first().click()")
    tab.until(f"document.querySelector('.code:has(.{what}) button').textContent[3] === 'i'")
    return str(tab("return page.evaluate(() => navigator.clipboard.readText())"))


def drawn_again(tab: Tab, folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Any]:
    """Run the command and the Python that the page shows; returns the file, and the samples."""
    monkeypatch.chdir(folder)
    words = shlex.split(copied(tab, "command"))
    assert words[0] == "difftool"
    assert main(words[1:]) == 0
    names: dict[str, Any] = {}
    exec(copied(tab, "python"), names)
    return folder / words[words.index("--out") + 1], names["samples"]


def assert_same_again(
    tab: Tab, model: Model, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Check that the saved sheet, the command's file and Python's samples have the same pixels."""
    _, sheet = saved(tab)
    file, samples = drawn_again(tab, folder, monkeypatch)
    wanted = grid(difftool.to_uint8(samples, model.spec))[..., 0]
    assert (pixels(sheet) == wanted).all()
    assert (pixels(file.read_bytes()) == wanted).all()


def axe(tab: Tab) -> list[str]:
    """Return what axe-core finds wrong with the page as it is."""
    return list(
        tab(
            """
            await page.evaluate(require("axe-core").source);
            // A colour on its way to another one has no contrast that counts.
            const moving = () => document.getAnimations().map((each) => each.finished);
            await page.evaluate(`Promise.allSettled((${moving})())`);
            const { violations } = await page.evaluate(() => axe.run());
            return violations.map(({ id, impact, nodes }) => `${impact} ${id} ${nodes[0].html}`);
            """
        )
    )
