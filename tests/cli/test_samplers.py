"""The list of samplers; and every one by name, on each model: it runs, or says what would."""

import inspect
import re
from pathlib import Path

import numpy as np
import pytest

from difftool.cli import options
from difftool.diffusion.samplers import SAMPLERS
from difftool.runtime import Model, load
from difftool.runtime.shipped import find_bundle
from tests.cli.conftest import Command, Refusal

LEVELS = {"ddpm-mnist": 1000, "ncsn-mnist": 95, "points": 5}


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


@pytest.fixture(scope="module")
def opened(points_bundle: Path) -> dict[str, Model]:
    return {name: load(points_bundle if name == "points" else name, threads=1) for name in LEVELS}


@pytest.mark.parametrize(("name", "sampler", "steps"), RUNS)
def test_every_name_draws_samples(
    name: str, sampler: str, steps: int, opened: dict[str, Model]
) -> None:
    call = options.sampler_call(sampler, steps, None, None)
    program = options.choose_program(opened[name].bundle, call)
    assert np.isfinite(opened[name].sample(program, n=1)).all()


@pytest.mark.parametrize("model", LEVELS, indirect=True)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_name_is_enough(model: Path, sampler: str, difftool: Command) -> None:
    """The sampler's defaults suit the model; a proof runs it, but for the network."""
    done = difftool("program", model, "--sampler", sampler, "--quiet")  # no warnings
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(f"{sampler}(steps=")


@pytest.mark.parametrize("model", ["ddpm-mnist", "ncsn-mnist"], indirect=True)
@pytest.mark.parametrize("corrector", ["adaptive", "reference"])
def test_the_shipped_models_correct_by_norms(
    model: Path, corrector: str, difftool: Command
) -> None:
    line = ("--sampler", "predictor_corrector", "--steps", 4, "--arg", f"corrector={corrector}")
    done = difftool("sample", model, *line, "-n", 2, "--threads", 1, "--quiet", "--out", "a.npy")
    assert (done.code, done.err) == (0, "")
    assert np.isfinite(np.load("a.npy")).all()


@pytest.mark.parametrize(
    ("model", "line", "hint"),
    [
        ("ddpm-mnist", "annealed_langevin --steps 50", "consistent_annealed takes fewer"),
        ("ddpm-mnist", "ddpm --arg variance=learned", "use variance small or large"),
        ("ddpm-mnist", "plms --steps 2", "ddim and euler take fewer"),
        ("ddpm-mnist", "plms --arg spacing=karras", "dpmpp_2m, dpmpp_3m and unipc take any"),
        ("ddpm-mnist", "predictor_corrector --steps 3", "use a multiple of 2"),
        ("ncsn-mnist", "ddim --steps 96", "use 1 to 95 steps; annealed_langevin takes more"),
        ("ncsn-mnist", "heun --steps 190", "use 1 to 189 steps; annealed_langevin takes more"),
        ("ncsn-mnist", "repaint --steps 933", "use 1 to 932 steps; annealed_langevin takes more"),
        ("points", "predictor_corrector --arg corrector=adaptive", "export it again: --with norms"),
        ("points", "ddim --arg clip=" + "[" * 5000, "give one of type bool"),
    ],
    indirect=["model"],
)
def test_a_refusal_says_what_would_do(model: Path, line: str, hint: str, refuses: Refusal) -> None:
    refuses(["sample", model, "--sampler", *line.split()], 2, "", hint)


def test_every_sampler_is_listed_with_its_arguments_and_source(difftool: Command) -> None:
    listed = difftool("samplers", "--json").json()
    assert list(listed) == list(SAMPLERS)
    for name, record in listed.items():
        assert re.search(r"^\w.* (et al\.|and \w+) \d{4}", record["source"]), name
        _, *parameters = inspect.signature(SAMPLERS[name]).parameters.values()
        defaults = {each.name: each.default for each in parameters}
        assert {key: each["default"] for key, each in record["arguments"].items()} == defaults
        types = {each["type"] for each in record["arguments"].values()}
        assert types <= {"int", "float", "str", "bool"}
        assert record["description"] == inspect.getdoc(SAMPLERS[name])


def test_the_list_is_two_lines_for_each_sampler(difftool: Command) -> None:
    done = difftool("samplers")
    assert (done.code, done.err) == (0, "")
    assert re.findall(r"^(\w+)\(steps", done.out, re.MULTILINE) == list(SAMPLERS)
    lines = done.out.splitlines()
    assert len(lines) == 2 * len(SAMPLERS)
    assert lines[2:4] == [
        "ddim(steps, eta=0.0, clip=true, raw_epsilon=false, spacing=linspace)",
        "    Song et al. 2021a, eq. 12",
    ]


def test_one_sampler_is_explained(difftool: Command) -> None:
    out = difftool("samplers", "unipc").out
    assert out.startswith("unipc:\n  source   Zhao et al. 2023, algorithms 5 and 6\n")
    assert out.endswith(f"\n\n{inspect.getdoc(SAMPLERS['unipc'])}\n")


@pytest.mark.parametrize("line", [["samplers", "?"], ["program", "--sampler", "?"]])
def test_an_unknown_name_is_answered_with_all_of_them(line: list[str], difftool: Command) -> None:
    difftool(*line).refused(2, "unknown sampler '?'", f"hint: one of: {', '.join(SAMPLERS)}")


def test_a_sampler_must_be_named_by_the_option(difftool: Command) -> None:
    difftool("program", "--sampler", "").refused(2, "", "hint: see: difftool samplers")
