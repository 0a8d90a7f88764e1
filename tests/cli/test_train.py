"""difftool train: the configuration that flags make, and a run that goes on."""

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

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


def picture(path: Path, *, size: tuple[int, int] = (8, 8), mode: str = "L") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size).save(path)


def test_a_run_is_named_after_its_data(difftool: Command, recipe: Path, tmp_path: Path) -> None:
    done = difftool("train", "ncsn", "--config", recipe, "--data", "moons", "--steps", 1, "--json")
    assert json.loads(done.out)["run"] == "runs/moons"
    done = difftool("train", "ncsn", "--config", recipe, "--steps", 1, "--json")
    assert json.loads(done.out)["run"] == "runs/mine"  # the configuration's own data


@pytest.mark.parametrize(
    ("images", "message", "hint"),
    [
        ({"a": {}, "b": {"size": (12, 20)}}, "but image 1 is 12x20 L", "--set data.size=8"),
        ({"a": {}, "b": {"mode": "RGB"}}, "8x8 RGB", "give --set data.mode=RGB"),
        ({"a": {"mode": "RGBA"}}, "mode 'RGBA'", "give --set data.mode=RGB"),
        ({"a": {"mode": "P"}}, "mode 'P'", "give --set data.mode=RGB"),
        ({"a": {"mode": "I;16"}}, "more than 8 bits a channel", "save it with 8 bits"),
        ({"a": {"size": (30, 31)}}, "cannot take samples", "give --set data.size=28"),
        ({"test/a": {}, "val/a": {}}, "no split 'train'", "give --set data.split=test"),
    ],
    ids=("sizes", "modes", "alpha", "palette", "16bit", "odd", "split"),
)
def test_data_that_does_not_fit_is_told_the_setting(
    images: dict[str, Any],
    message: str,
    hint: str,
    difftool: Command,
    tmp_path: Path,
) -> None:
    for name, how in images.items():
        picture(tmp_path / "photos" / f"{name}.png", **how)
    deep = ("--set", "network.arguments.multipliers=[1,1,1]", "--quiet")
    difftool("train", "ddpm", "--data", "photos", *deep).refused(2, message, hint)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photos"]
