"""In Chromium, the page of difftool serve draws what `difftool sample` and Python draw."""

import base64
import io
import json
import os
import shlex
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import difftool
from difftool.cli import main
from difftool.diffusion.samplers import ddim, unipc
from difftool.runtime.images import grid
from difftool.runtime.model import Model
from tests.browser.tabs import Browser, Tab, served
from tests.serve.conftest import Gate

pytest.importorskip("starlette")

from difftool.serve import Application, ServeSettings

KEY = "a-key-for-the-tests"
DESK = {"viewport": {"width": 1280, "height": 860}}
PHONE = {"viewport": {"width": 390, "height": 844}, "hasTouch": True, "isMobile": True}
SIZES = pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
SCHEMES = pytest.mark.parametrize("scheme", ["light", "dark"])
OpenTab = Callable[..., AbstractContextManager[Tab]]


@pytest.fixture(scope="module")
def browser(node: str, chromium: str, modules: Path) -> Iterator[Browser]:
    found = Browser(node, chromium, modules)
    yield found
    found.end()


@pytest.fixture(scope="module")
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


@SIZES
def test_it_draws_step_by_step(
    open_tab: OpenTab,
    gated: Model,
    gate: Gate,
    size: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with open_tab(ddpm_mnist=gated, **size) as tab:
        tab.fill(sampler="ddim", num_inference_steps=12, n=8, seed=3)
        tab("await page.click('#draw')")
        tab.until_said("Waiting")
        looks = []
        for step in (1, 2, 8):
            gate.may.release(step - len(looks) if step < 3 else 6)
            tab.until_said(f"Step {step} of 12")
            looks.append(tab("return page.locator('.tiles img').first().getAttribute('src')"))
            bar = tab("return page.locator('progress').evaluate((element) => element.value)")
            assert bar == pytest.approx(step / 12)
        assert len({*looks}) == 3
        assert all(pixels(look.partition(",")[2]).shape == (28, 28) for look in looks)
        assert tab("return page.locator('#draw').isDisabled()")
        tab.until("document.querySelector('[data-of=running] strong').textContent === '8'")
        keep(tab, "page-phone.png" if size is PHONE else "page.png")
        gate.open()
        tab.until_done()
        assert tab.text(".facts").startswith("12 steps · 8 samples · seed 3 · ")
        wanted = ddim(gated.spec, steps=12)
        digits = difftool.to_uint8(gated.sample(wanted, n=8, seed=3), gated.spec)[..., 0]
        name, single = saved(tab, ".tiles li:nth-child(2) a")
        assert name == "ddpm-mnist-3-1.png"
        assert (pixels(single) == digits[1]).all()
        assert saved(tab)[0] == "ddpm-mnist-3.png"
        command = copied(tab, "command")
        assert command == (
            "difftool sample ddpm-mnist --sampler ddim --steps 12 -n 8 --seed 3 "
            "--out ddpm-mnist-3.png"
        )
        assert_same_again(tab, gated, tmp_path, monkeypatch)


def test_looking_back(open_tab: OpenTab, gated: Model, gate: Gate) -> None:
    with open_tab(digits=gated) as tab:
        tab.fill(sampler="ddim", num_inference_steps=5, n=1)
        tab("await page.click('#draw')")
        tab.until_said("Waiting")
        gate.open()
        tab.until_done()
        source = "return page.locator('.tiles img').getAttribute('src')"
        last = tab(source)
        tab("await page.locator('.back input').press('Home')")
        first = tab(source)
        assert tab.text(".back span") == "Step 1"
        assert (pixels(first.partition(",")[2]) != pixels(last.partition(",")[2])).any()
        _, kept = saved(tab, ".tiles a")
        assert (pixels(kept) == pixels(last.partition(",")[2])).all(), "the picture is saved"
        tab("await page.locator('.back input').press('End')")
        assert tab(source) == last


@pytest.mark.parametrize("how", ["page.click('#cancel')", "page.keyboard.press('Escape')"])
def test_a_cancel_cancels(open_tab: OpenTab, gated: Model, gate: Gate, how: str) -> None:
    runner = gated.scheduler()
    with open_tab(digits=gated) as tab:
        tab.fill(sampler="ddim", num_inference_steps=30, n=2)
        tab("await page.focus('#draw'); await page.keyboard.press('Enter')")
        tab.until_said("Waiting")
        gate.may.release(2)
        tab.until_said("Step 2 of 30")
        tab(f"await {how}")
        tab.until("document.querySelector('.panel').dataset.state === 'cancelled'")
        # A step at a time, as the server may hear of it a little later.
        while runner.counts.pending:
            gate.may.release()
            tab.text(".facts")
        assert (runner.counts.cancelled, runner.counts.ok) == (1, 0)
        tab.until("document.body.dataset.state === 'ready'")
        assert tab.text(".facts") == "Cancelled after 2 of 30 steps"
        assert tab.text("#said") == "Cancelled."
        assert tab("return page.evaluate(() => document.activeElement.id)") == "draw"
        gate.open()
        tab("await page.click('#draw')")
        tab.until_done()


def test_two_samplers_from_one_seed(open_tab: OpenTab, gated: Model, gate: Gate) -> None:
    with open_tab(digits=gated, colorScheme="dark") as tab:
        tab("await page.check('#compare')")
        tab.fill(0, sampler="unipc", num_inference_steps=8)
        tab.fill(1, sampler="ddim", num_inference_steps=24)
        tab.fill(n=4, seed=11)
        tab("await page.click('#draw')")
        tab.until_said("Waiting")
        tab.until_said("Waiting", 1)
        gate.may.release(9)  # one may have begun a step before the other
        tab.until_said("8 steps")
        tab.until_said("Step", 1)
        gate.open()
        tab.until_done(1)
        assert len({*tab("return page.locator('.panel h2').allTextContents()")}) == 2
        found = tab(
            """
            return page.locator(".panel").evaluateAll((panels) =>
              panels.map((panel) => [...panel.querySelectorAll("img")].map(({ src }) => src)))
            """
        )
        for sources, program in zip(
            found, (unipc(gated.spec, steps=8), ddim(gated.spec, steps=24)), strict=True
        ):
            samples = gated.sample(program, n=4, seed=11)
            wanted = difftool.to_uint8(samples, gated.spec)[..., 0]
            assert (np.stack([pixels(src.partition(",")[2]) for src in sources]) == wanted).all()
        tab.until("!document.querySelector('[data-of=running] strong').textContent.match(/[1-9]/)")
        keep(tab, "page-compare.png")


def test_labels_guidance_and_arguments(
    open_tab: OpenTab, classes_bundle: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    model = difftool.load(classes_bundle, threads=1)
    with open_tab(classes=model) as tab:
        tab("await page.click('.choice summary')")
        tab.fill(sampler="ddim", num_inference_steps=6, n=3, seed=2**64 - 1)
        tab.fill(labels=2, guidance_scale=2.5, eta=0.25, clip="false")
        assert "New" in tab.text("#new-seed")
        tab("await page.click('#draw')")
        tab.until_done()
        alts = tab("return page.locator('.tiles img').evaluateAll((all) => all.map((e) => e.alt))")
        assert alts == [f"Sample {index}, class 2" for index in range(3)]
        program = ddim(model.spec, steps=6, eta=0.25, clip=False)
        asked = {"n": 3, "seed": 2**64 - 1, "labels": 2, "guidance_scale": 2.5}
        wanted = grid(difftool.to_uint8(model.sample(program, **asked), model.spec))[..., 0]
        assert (pixels(saved(tab)[1]) == wanted).all()
        (tmp_path / "classes").symlink_to(classes_bundle)
        assert_same_again(tab, model, tmp_path, monkeypatch)
        tab.fill(labels=model.spec.classes, guidance_scale=1)  # none
        tab("await page.click('#draw')")
        tab.until("document.querySelector('.tiles img').alt === 'Sample 0, no class'")
        tab.until_done()
        (tmp_path / f"classes-{2**64 - 1}.png").unlink()
        assert_same_again(tab, model, tmp_path, monkeypatch)


def test_points_are_a_scatter_plot(
    open_tab: OpenTab, points_bundle: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    model = difftool.load(points_bundle, threads=1)
    with open_tab(points=model) as tab:
        assert tab("return page.locator('#n').inputValue()") == "64"
        tab.fill(n=20, seed=4)
        tab("await page.click('#draw')")
        tab.until_done()
        wanted = model.sample(n=20, seed=4)
        assert tab("return page.locator('.scatter circle').count()") == 20
        name, content = saved(tab)
        assert name == "points-4.csv"
        found = np.loadtxt(io.BytesIO(content), delimiter=",", skiprows=1, dtype=np.float32)
        assert found.tobytes() == wanted.tobytes()
        assert axe(tab) == []
        (tmp_path / "points").symlink_to(points_bundle)
        file, samples = drawn_again(tab, tmp_path, monkeypatch)
        assert samples.tobytes() == wanted.tobytes()
        assert np.load(file)["samples"].tobytes() == wanted.tobytes()


def test_a_key_is_asked_for_and_not_kept(open_tab: OpenTab, digits: Model) -> None:
    settings = ServeSettings(keys=(KEY,))
    with open_tab(settings, digits=digits, wait=False, refusals=True) as tab:
        for key, wrong in (("not-" + KEY, True), (KEY, False)):
            tab.until("document.querySelector('#lock').open")
            assert axe(tab) == []
            tab("await page.fill('#key', key); await page.keyboard.press('Enter')", key=key)
            if wrong:
                tab.until("document.querySelector('#wrong-key').textContent.includes('not one')")
        tab.until("document.body.dataset.state === 'ready'")
        tab.fill(sampler="ddim", num_inference_steps=2, n=1)
        tab("await page.click('#draw')")
        tab.until_done()
        kept = tab(
            """
            const inside = await page.evaluate(() => [
              localStorage, sessionStorage, document.cookie, location.href,
              document.documentElement.outerHTML, document.querySelector("#key").value,
            ].map((each) => JSON.stringify(each)));
            return JSON.stringify([inside, await context.storageState(), found.requests]);
            """
        )
        assert KEY not in kept
        tab("await page.reload()")
        tab.until("document.querySelector('#lock').open")
        tab("await page.keyboard.press('Escape')")
        tab.until("document.querySelector('#fault').textContent.includes('no key')")
        tab("await page.click('#retry')")
        tab.until("document.querySelector('#lock').open")


def test_errors_say_what_to_do(open_tab: OpenTab, digits: Model) -> None:
    settings = ServeSettings(max_work=28 * 28 * 10)
    with open_tab(settings, digits=digits, refusals=True) as tab:
        tab.fill(sampler="ddim", num_inference_steps=2, n=6)
        tab("await page.click('#draw')")
        tab.until("document.querySelector('.panel').dataset.state === 'failed'")
        said = tab.text(".panel .problem")
        assert said.startswith("n: 9408 samples times steps times numbers are more than 7840.")
        assert "Hint: ask for less at a time." in said
        assert tab("return page.locator('#n').getAttribute('aria-invalid')") == "true"
        assert axe(tab) == []
        tab.fill(n=5)
        tab("await page.click('#draw')")
        tab.until_done()
        tab.fill(seed=2**64)
        tab("await page.click('#draw')")
        assert "at most" in tab("return page.locator('#seed').evaluate((e) => e.validationMessage)")
        tab.fill(seed=0)
        tab("await context.setOffline(true); await page.click('#draw')")
        tab.until("document.querySelector('.panel .problem').textContent.includes('reached')")
        assert "Hint: is it still running?" in tab.text(".panel .problem")


def test_the_batch_is_drawn_while_somebody_looks(
    open_tab: OpenTab, gated: Model, gate: Gate
) -> None:
    asked = "return found.requests.filter((url) => url.endsWith('/v1/status')).length"
    with open_tab(digits=gated) as tab:
        tab("await page.check('#compare')")
        tab.fill(0, sampler="ddim", num_inference_steps=1000)
        tab.fill(1, sampler="ddpm", num_inference_steps=1000)
        tab.fill(n=3)
        tab("await page.click('#draw')")
        gate.may.release(1)
        tab.until("document.querySelector('[data-of=running] strong').textContent === '6'")
        while tab.text("[data-of=batch] dd strong") != "6.0":
            gate.may.release()
        assert tab.text("[data-of=batch] span") == "of 8"
        assert "L" in tab("return page.locator('[data-of=batch] .line').getAttribute('d')")
        hide = """
            await page.evaluate((hidden) => {
              Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
              document.dispatchEvent(new Event("visibilitychange"));
            }, hidden);
        """
        tab(hide, hidden=True)
        before = tab(asked)
        gate.open()
        tab("await page.keyboard.press('Escape'); await page.uncheck('#compare')")
        for _ in range(3):
            tab.until("document.body.dataset.state === 'ready'")
            tab.fill(num_inference_steps=3)
            tab("await page.click('#draw')")
            tab.until_done()
        assert tab(asked) <= before + 1, "one may have been on its way"
        before = tab(asked)
        tab(hide, hidden=False)
        while tab(asked) == before:
            pass


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
        assert [name for name in passed if name in fields] == fields
        tab("await page.keyboard.press('Shift+Tab'); await page.keyboard.press('Enter')")
        assert tab("return page.locator('#seed').inputValue()") != "0"
        tab("await page.keyboard.press('Tab'); await page.keyboard.press('Enter')")
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
