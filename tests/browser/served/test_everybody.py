"""The page of difftool serve on a phone, without a mouse, and for who wants no motion."""

import json
from pathlib import Path
from typing import Any

import pytest

import difftool
from difftool.runtime.model import Model
from tests.browser.served.looking import SIZES, OpenTab, axe, copied
from tests.serve.conftest import Gate

SCHEMES = pytest.mark.parametrize("scheme", ["light", "dark"])


@SIZES
@SCHEMES
def test_axe_finds_nothing(
    open_tab: OpenTab, classes_bundle: Path, size: dict[str, Any], scheme: str
) -> None:
    model = difftool.load(classes_bundle, threads=1)
    with open_tab(classes=model, colorScheme=scheme, **size) as tab:
        assert axe(tab) == []
        tab("await page.check('#compare'); await page.locator('.choice summary').first().click()")
        tab.fill(num_inference_steps=3)
        tab("await page.click('#draw')")
        tab.until_done()
        tab.until_done(1)
        copied(tab, "command")
        assert axe(tab) == []
        wide = tab("return page.evaluate(() => document.documentElement.scrollWidth)")
        assert wide <= size["viewport"]["width"]


def test_a_keyboard_is_enough(open_tab: OpenTab, digits: Model) -> None:
    at = "return page.evaluate(() => document.activeElement.name || document.activeElement.id)"
    ring = "return page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle)"
    with open_tab(digits=digits) as tab:
        passed = []
        while not passed or passed[-1] != "draw":
            tab("await page.keyboard.press('Tab')")
            passed.append(tab(at))
            assert tab(ring) != "none", passed[-1]
        fields = ["model", "sampler", "num_inference_steps", "compare", "n", "seed", "new-seed"]
        fields += ["labels", "guidance_scale"]
        assert [name for name in passed if name in fields] == fields
        back, on = (f"await page.keyboard.press('{key}');" for key in ("Shift+Tab", "Tab"))
        tab(3 * back + "await page.keyboard.press('Enter')")
        assert tab("return page.locator('#seed').inputValue()") != "0"
        tab(3 * on + "await page.keyboard.press('Enter')")
        tab.until_done()
        tab.until("document.activeElement.id === 'draw'")
        assert tab.text("#said").startswith("Done: ")


def test_nothing_moves_for_who_asks_for_that(open_tab: OpenTab, gated: Model, gate: Gate) -> None:
    with open_tab(digits=gated, reducedMotion="reduce") as tab:
        tab.fill(sampler="ddim", num_inference_steps=6, n=2)
        tab("await page.click('#draw')")
        tab.until_said("Waiting")
        gate.may.release(4)
        tab.until_said("Step 4 of 6")
        shown = "return page.locator('.tiles img[src]').count()"
        assert tab(shown) == 0
        gate.open()
        tab.until_done()
        assert tab(shown) == 2
        assert json.loads(tab("return page.locator('.back input').getAttribute('max')")) == 5
