"""In Chromium, the page of difftool serve draws what `difftool sample` and Python draw."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import difftool
from difftool.diffusion.samplers import ddim, unipc
from difftool.runtime.images import grid
from difftool.runtime.model import Model
from tests.browser.served.looking import (
    PHONE,
    SIZES,
    OpenTab,
    assert_same_again,
    axe,
    copied,
    drawn_again,
    keep,
    pixels,
    saved,
)
from tests.serve.conftest import Gate


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
            "--scale 1 --out ddpm-mnist-3.png"
        )
        assert_same_again(tab, gated, tmp_path, monkeypatch)


def test_a_poor_program_is_warned_of(open_tab: OpenTab, digits: Model) -> None:
    with open_tab(digits=digits) as tab:
        for steps, said in (
            (4, "Warning: with so few steps, 4, each divides the noise by"),
            (20, ""),
        ):
            tab.fill(sampler="ddim", num_inference_steps=steps, n=2)
            tab("await page.click('#draw')")
            tab.until_done()
            assert tab.text(".caution").startswith(said)
            assert bool(said) == bool(tab.text(".caution"))


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
        tab.fill(labels="", guidance_scale=1)  # any
        tab("await page.click('#draw')")
        tab.until("document.querySelector('.tiles img').alt === 'Sample 0'")
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
