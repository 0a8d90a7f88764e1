"""difftool train: the configuration that flags make, and a run that goes on."""

import json
import re
import shutil
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from difftool.train.config import parse, read_toml
from difftool.train.presets import preset, preset_names
from tests.cli.conftest import Command, Refusal


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


def test_a_run_is_resumed_by_its_folder_alone(difftool: Command, recipe: Path) -> None:
    """Its data, its preset and all else come from it, whatever command made it."""
    made = difftool("train", "ncsn", "--config", recipe, "--out", "run", "--seed", 5, "--json")
    assert made.code == 0, made.err
    recipe.unlink()
    assert difftool("train", "--resume", "run").out == "all 2 steps were done before -> run\n"
    done = difftool("train", "--resume", "run", "--steps", 3, "--set", "run.log_every=1")
    begun, resumed, step = done.err.splitlines()
    assert begun == "training run into run"
    assert resumed == (
        "going on in run after step 2; it had run.steps 2, not 3; run.log_every 100, not 1"
    )
    assert step.startswith("step 3 of 3, loss ")
    refused = difftool("train", "--resume", "run", "--set", "optimizer.lr=2", "--batch", 4)
    assert refused.code == 2
    assert "was trained with optimizer.lr 0.001, not 2.0; run.batch 8, not 4\n" in refused.err
    shown = difftool("train", "--resume", "run", "--print-config", "--json").json()
    assert (shown["run"]["seed"], shown["run"]["steps"]) == (5, 3)


def test_a_run_that_ended_before_its_first_checkpoint_begins_again(
    difftool: Command, recipe: Path, tmp_path: Path
) -> None:
    line = ("train", "ncsn", "--config", recipe, "--out", "run", "--json")
    assert difftool(*line).code == 0
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    assert difftool("train", "--resume", "run", "--json").code == 0
    assert (tmp_path / "run" / "checkpoints" / "step-000000002").is_dir()


@pytest.mark.parametrize(
    ("line", "code", "message"),
    [
        ((), 2, "METHOD is missing"),
        (("--resume", "nowhere"), 2, "nowhere holds no run to resume"),
        (("ddpm", "--resume", "nowhere", "--preset", "toy"), 2, "--preset are both given"),
        (("--resume", "nowhere", "--out", "x"), 2, "--resume nowhere and --out are both given"),
        (("--resume", "x", "--no-resume"), 2, "--resume x and --no-resume are both given"),
        (("--init", "nowhere", "--data", "digits"), 3, "nowhere is not a checkpoint"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_what_says_too_little_or_too_much_is_refused(
    line: tuple[str, ...], code: int, message: str, refuses: Refusal
) -> None:
    refuses(("train", *line), code, message)


@pytest.mark.parametrize("golden", ["ddpm_pesser16", "ncsn_v1_mnist28"])
def test_a_golden_checkpoint_is_trained_further(
    golden: str, shared: Path, difftool: Command, tmp_path: Path
) -> None:
    """It says itself what is trained, and pictures of any size and colour are made to fit."""
    assert difftool("import", shared / "golden" / golden, "--out", "given", "--json").code == 0
    further(difftool, tmp_path)


def test_a_diffusers_folder_is_trained_further(difftool: Command, tmp_path: Path) -> None:
    diffusers = pytest.importorskip("diffusers")
    from tests.oracles.diffusers_models import SMALL

    sizes = {"sample_size": 8, "in_channels": 3, "out_channels": 3}
    unet = diffusers.UNet2DModel(**(SMALL | sizes))
    diffusers.DDPMPipeline(unet, diffusers.DDPMScheduler()).save_pretrained(tmp_path / "folder")
    assert difftool("import", "folder", "--out", "given", "--json").code == 0
    further(difftool, tmp_path)


def further(difftool: Command, place: Path) -> None:
    """Train the checkpoint `given` for a step, on photographs."""
    (place / "photos").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (4, 40, 50, 3)).astype(np.uint8)
    for index, each in enumerate(pixels):
        Image.fromarray(each).save(place / f"photos/{index}.png")
    line = ("train", "--init", "given", "--data", "photos", "--steps", 1, "--batch", 2)
    done = difftool(*line, "--set", "optimizer.warmup=0", "--out", "tuned", "--json")
    assert (done.code, done.err) == (0, "training given-tuned into tuned\n")
    before, after = (difftool("inspect", name, "--json").json() for name in ("given", "tuned"))
    for key in ("spec", "program"):
        assert after[key] == before[key]
    for key in ("kind", "parameters"):
        assert after["network"][key] == before["network"][key]


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
