"""difftool train: the configuration that flags make, and a run that goes on."""

import json
import re
import tomllib
from pathlib import Path

import pytest

from difftool.train.config import parse, read_toml
from difftool.train.presets import preset, preset_names
from tests.cli.conftest import Command


@pytest.fixture
def recipe(tmp_path: Path, toy_recipe: str) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(toy_recipe)
    return path


def test_flags_and_assignments_say_what_toml_says(difftool: Command, recipe: Path) -> None:
    counts = ("--steps", 77, "--batch", 12, "--accumulate", 4)
    flags = (*counts, "--seed", 5, "--data", 'a "folder" of 123')
    flags += ("--init", "runs/first")
    line = ("train", "ncsn", "--config", recipe, *flags, "--set", "optimizer.lr=2e-5")
    done = difftool(*line, "--print-config")
    assert (done.code, done.err) == (0, "")
    expected = read_toml(recipe).model_dump()
    expected["run"] |= {"steps": 77, "batch": 12, "seed": 5}
    expected["data"]["source"] = 'a "folder" of 123'
    expected["network"]["init"] = "runs/first"
    expected["optimizer"] |= {"lr": 2e-5, "accumulate": 4}
    assert parse(tomllib.loads(done.out)).model_dump() == expected


def test_a_printed_configuration_reads_back(difftool: Command, tmp_path: Path) -> None:
    name = preset_names()[0]
    method = preset(name).method
    printed = difftool("train", method, "--preset", name, "--print-config").out
    (tmp_path / "printed.toml").write_text(printed)
    again = difftool("train", method, "--config", "printed.toml", "--print-config")
    assert again.out == printed
    as_json = difftool("train", method, "--preset", name, "--print-config", "--json").out
    assert parse(json.loads(as_json)) == preset(name)


@pytest.mark.parametrize("method", ["ddpm", "ncsn"])
def test_a_method_alone_names_a_recipe(method: str, difftool: Command) -> None:
    assert difftool("train", method, "--print-config", "--json").json()["method"] == method


def test_a_run_goes_on(difftool: Command, recipe: Path, tmp_path: Path) -> None:
    line = ("train", "ncsn", "--config", recipe, "--out", "run", "--json")
    first = difftool(*line, "--steps", 2)
    assert first.code == 0, first.err
    assert json.loads(first.out)["step"] == 2
    refused = difftool(*line, "--steps", 4, "--no-resume")
    assert refused.code == 2
    assert "already holds a run" in refused.err
    second = json.loads(difftool(*line, "--steps", 4).out)
    assert second["step"] == 4
    assert (tmp_path / second["checkpoint"] / "model.safetensors").is_file()
    inspected = difftool("inspect", "run", "--json").json()
    assert inspected["resumable"] is True
    assert inspected["training"]["run"]["steps"] == 4


def test_a_run_says_how_far_it_is_and_how_it_ended(difftool: Command, recipe: Path) -> None:
    """Not on a terminal: a line now and then, and a last one."""
    line = ("train", "ncsn", "--config", recipe, "--out", "run", "--set", "run.log_every=1")
    done = difftool(*line)
    assert done.code == 0
    begun, *lines = done.err.splitlines()
    assert begun.startswith("training ")
    assert [told.partition(", ")[0] for told in lines] == ["step 1 of 2", "step 2 of 2"]
    assert re.fullmatch(r"2 steps in \d+ s, loss \S+ -> run\n", done.out)
    assert difftool(*line).out == "all 2 steps were done before -> run\n"
    whole = difftool(*line, "--steps", 3, "--verbose").out.splitlines()
    assert whole[-1].startswith("1 step to 3 in ")
    assert {"checkpoint", "seconds", "loss"} <= {told.split()[0] for told in whole[:-1]}
    quiet = difftool(*line, "--steps", 4, "--quiet")
    assert (quiet.code, quiet.out, quiet.err) == (0, "", "")


@pytest.mark.parametrize(
    "line",
    [
        ("ddpm", "--data", "moons"),
        ("ddpm", "--data", "digits", "--set", "network.arguments.multipliers=[1,1,1,1,1]"),
        ("ddpm", "--set", "network.arguments.dropout=2"),
        ("ddpm", "--set", 'network.arguments.blocks="x"'),
        ("ddpm", "--set", "network.arguments.x=" + "[" * 5000),
        ("ncsn", "--set", "schedule.levels=" + "9" * 5000),
        ("ncsn", "--data", "digits"),
    ],
    ids=lambda line: " ".join(line)[:60],
)
def test_a_refusal_leaves_nothing(line: tuple[str, ...], difftool: Command, tmp_path: Path) -> None:
    done = difftool("train", *line, "--out", "run")
    assert done.code == 2, done.err
    assert "Traceback" not in done.err
    assert all(len(said) < 720 for said in done.err.splitlines())
    assert not (tmp_path / "run").exists()
