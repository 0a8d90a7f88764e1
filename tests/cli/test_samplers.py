"""Every sampler by name, on the shipped models and on points: it runs, or says what would."""

from pathlib import Path

import numpy as np
import pytest

from difftool.diffusion.samplers import SAMPLERS
from difftool.runtime.model import find_bundle
from tests.cli.conftest import Command

LEVELS = {"ddpm-mnist": 1000, "ncsn-mnist": 10, "points": 5}


@pytest.fixture
def model(request: pytest.FixtureRequest, points_bundle: Path) -> Path:
    return points_bundle if request.param == "points" else find_bundle(request.param)


def _few(name: str, sampler: str) -> int:
    """The fewest steps that are easily given to this sampler."""
    return {"plms": 3, "annealed_langevin": LEVELS[name]}.get(sampler, 2)


RUNS = [
    pytest.param(name, sampler, _few(name, sampler), id=f"{sampler} {name}")
    for name in LEVELS
    for sampler in SAMPLERS
    if _few(name, sampler) <= 10
]


@pytest.mark.parametrize(("model", "sampler", "steps"), RUNS, indirect=["model"])
def test_every_name_draws_samples(
    model: Path, sampler: str, steps: int, difftool: Command, tmp_path: Path
) -> None:
    line = ("--sampler", sampler, "--steps", steps, "-n", 1, "--threads", 1, "--out", "a.npy")
    done = difftool("sample", model, *line)
    assert (done.code, done.err) == (0, "")
    assert np.isfinite(np.load(tmp_path / "a.npy")).all()


@pytest.mark.parametrize("model", LEVELS, indirect=True)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_name_is_enough(model: Path, sampler: str, difftool: Command) -> None:
    """What the sampler takes by default suits the model; a proof runs it, but for the network."""
    done = difftool("program", model, "--sampler", sampler)
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(f"{sampler}(steps=")


@pytest.mark.parametrize("model", ["ddpm-mnist", "ncsn-mnist"], indirect=True)
@pytest.mark.parametrize("corrector", ["adaptive", "reference"])
def test_the_shipped_models_correct_by_norms(
    model: Path, corrector: str, difftool: Command, tmp_path: Path
) -> None:
    line = ("--sampler", "predictor_corrector", "--steps", 4, "--arg", f"corrector={corrector}")
    done = difftool("sample", model, *line, "-n", 2, "--threads", 1, "--out", "a.npy")
    assert (done.code, done.err) == (0, "")
    assert np.isfinite(np.load(tmp_path / "a.npy")).all()


@pytest.mark.parametrize(
    ("model", "line", "hint"),
    [
        ("ddpm-mnist", "annealed_langevin --steps 50", "consistent_annealed takes fewer"),
        ("ddpm-mnist", "ddpm --arg variance=learned", "use variance small or large"),
        ("ddpm-mnist", "plms --steps 2", "ddim and euler take fewer"),
        ("ddpm-mnist", "plms --arg spacing=karras", "dpmpp_2m, dpmpp_3m and unipc take any"),
        ("ddpm-mnist", "predictor_corrector --steps 3", "use a multiple of 2"),
        ("ncsn-mnist", "ddim --steps 50", "use 1 to 10 steps; annealed_langevin takes more"),
        ("ncsn-mnist", "heun --steps 50", "use 1 to 19 steps; annealed_langevin takes more"),
        ("ncsn-mnist", "repaint --steps 92", "use 1 to 91 steps; annealed_langevin takes more"),
        ("points", "predictor_corrector --arg corrector=adaptive", "export it again --with norms"),
    ],
    indirect=["model"],
)
def test_what_has_no_meaning_is_one_line_and_a_hint_of_what_has(
    model: Path, line: str, hint: str, difftool: Command, tmp_path: Path
) -> None:
    done = difftool("sample", model, "--sampler", *line.split())
    assert (done.code, done.out) == (2, "")
    error, hinted = done.err.splitlines()
    assert error.startswith("error: ")
    assert hint in hinted
    assert list(tmp_path.iterdir()) == []
