"""Programs are measured with the same data and judge, and what they reach is what eval says."""

import logging
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from difftool import load
from difftool.bundle import Bundle, Distilled
from difftool.bundle.manifest import ProgramEntry
from difftool.diffusion import SamplerCall, compile_program, schedules
from difftool.diffusion.samplers import ddim
from difftool.errors import CheckFailed, UsageError
from difftool.evaluate import candidates, evaluate, keep_measured, measure
from difftool.runtime import Model, open_bundle, to_uint8


def test_points_are_measured_as_eval_does(points_bundle: Path, tmp_path: Path) -> None:
    path = shutil.copytree(points_bundle, tmp_path / "points")
    model = load(path)
    program, own = ddim(model.spec, steps=4), model.default_program()
    told = []
    found = measure(
        model,
        against="moons",
        programs=[program, own],
        n=40,
        seed=3,
        on_program=lambda each, distance: told.append((each.name, distance)),
    )
    assert (found.figure, found.extractor_sha256) == ("sliced_wasserstein", None)
    for each, kept in zip((program, own), found.programs, strict=True):
        samples = model.sample(each, n=40, seed=3).astype(np.float64)
        expected = evaluate(samples, against="moons").figures
        assert kept.distance == expected.sliced_wasserstein  # type: ignore[union-attr]
        assert (kept.call, kept.evaluations) == (each.call, each.nfe)
    distances = [kept.distance for kept in found.programs]
    assert told == list(zip((program.name, own.name), distances, strict=True))
    assert keep_measured(model.bundle, found).manifest.measured == found
    assert load(path).program_of("best").call in [program.call, own.call]


def test_pictures_are_measured_by_their_features() -> None:
    model = load("ddpm-mnist", threads=1)
    program = ddim(model.spec, steps=2)
    data = to_uint8(model.sample(ddim(model.spec, steps=3), n=6, seed=9), model.spec)
    found = measure(model, against=data, programs=[program], n=6, seed=1)
    samples = to_uint8(model.sample(program, n=6, seed=1), model.spec)
    expected = evaluate(samples, against=data)
    assert found.extractor_sha256 == expected.extractor_sha256
    assert found.programs[0].distance == expected.figures.frechet_distance  # type: ignore[union-attr]


@pytest.fixture
def failing(points_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> Model:
    """A model whose samples are not finite if they take two steps."""
    model = load(points_bundle)
    draw: Callable[..., Any] = model.sample

    def sample(program: Any, **more: Any) -> Any:
        drawn = draw(program, **more)
        return drawn * np.nan if len(program) == 2 else drawn

    monkeypatch.setattr(model, "sample", sample)
    return model


def test_a_program_without_finite_samples_is_left_out(
    failing: Model, caplog: pytest.LogCaptureFixture
) -> None:
    programs = [ddim(failing.spec, steps=steps) for steps in (2, 3)]
    with caplog.at_level(logging.WARNING, logger="difftool"):
        found = measure(failing, against="moons", programs=programs, n=5)
    assert [each.evaluations for each in found.programs] == [3]
    assert "ddim(steps=2" in caplog.text
    with pytest.raises(CheckFailed, match="no program has finite samples"):
        measure(failing, against="moons", programs=programs[:1], n=5)
    with pytest.raises(UsageError, match="no program to measure"):
        measure(failing, against="moons", programs=[], n=5)


def names(bundle: Bundle, *arguments: Any, **more: Any) -> list[str]:
    return [str(each.call) for each in candidates(bundle, *arguments, **more)]


def test_the_candidates_suit_the_levels_and_have_no_caveat() -> None:
    vp, ve = open_bundle("ddpm-mnist"), open_bundle("ncsn-mnist")
    found = candidates(vp)
    assert [each.nfe for each in found] == sorted(each.nfe for each in found)
    assert found[-1].call == vp.manifest.program.call
    assert compile_program(
        vp.spec, SamplerCall("unipc", {"steps": 20, "spacing": "trailing"})
    ).name in {each.name for each in found}
    found = candidates(ve)
    assert found[-1].call == ve.manifest.program.call
    assert {each.call.name for each in found[:2]} == {"dpmpp_2m_sde", "euler_ancestral"}
    # Under a noisiest level of sigma 1 data are visible, so all but its own program have a caveat.
    levels = schedules.geometric(levels=10, sigma_min=0.01, sigma_max=1.0)
    own = SamplerCall("annealed_langevin", {"steps": 1000, "step_size": 2e-5})
    program = ProgramEntry(sampler=own.name, arguments=dict(own.arguments))
    manifest = ve.manifest.model_copy(update={"program": program})
    weak = Bundle(ve.path, manifest, replace(ve.spec, schedule=levels))
    assert [each.call.name for each in candidates(weak)] == [own.name]
    asked = names(ve, [4], samplers=["ddim", "heun"])
    assert [name.partition("(")[0] for name in asked] == ["ddim", "heun", "annealed_langevin"]
    with pytest.raises(UsageError, match="unknown sampler 'best'"):
        candidates(vp, samplers=["best"])


def test_a_distilled_model_takes_the_steps_that_it_was_made_for() -> None:
    bundle = open_bundle("ddpm-mnist")
    origin = Distilled(
        method="consistency", teacher_sha256="0" * 64, guidance_scale=1.0, steps=4, levels=[999]
    )
    manifest = bundle.manifest.model_copy(update={"distilled": origin})
    found = names(Bundle(bundle.path, manifest, bundle.spec))
    assert [name.partition(",")[0] for name in found[:3]] == [
        f"consistency(steps={steps}" for steps in (1, 2, 4)
    ]
