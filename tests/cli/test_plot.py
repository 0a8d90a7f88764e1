"""difftool plot: the files, the reports and the refusals of its four commands."""

import sys
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from difftool import plot
from difftool.bundle import read_bundle
from difftool.diffusion.samplers import ddim
from difftool.errors import install_hint
from tests.cli.conftest import SHOW_IMPORTS, Command, Refusal, tree
from tests.runtime.test_backends_gpu import cuda_runtime  # noqa: F401


@pytest.mark.parametrize("name", ["scores", "trajectory", "program", "schedule"])
def test_each_draws(name: str, difftool: Command, points_bundle: Path, tmp_path: Path) -> None:
    report = difftool("plot", name, points_bundle, "--json").json()
    path = tmp_path / f"{name}.png"
    assert report["out"] == path.name
    assert report["sha256"] == sha256(path.read_bytes()).hexdigest()
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert image.width > 700
    assert list(tmp_path.iterdir()) == [path]


def test_a_strip_of_images(difftool: Command, tiny_bundle: Path, tmp_path: Path) -> None:
    line = ("--sampler", "ddim", "--steps", 5, "--eta", 0.5, "-n", 2, "--seed", 3)
    done = difftool("plot", "trajectory", tiny_bundle, *line, "--out", "strip.svg", "--json")
    report = done.json()
    program = ddim(read_bundle(tiny_bundle).spec, steps=5, eta=0.5)
    assert report["program"] == program.name
    assert (report["n"], report["seed"], report["format"]) == (2, 3, "svg")
    assert (tmp_path / "strip.svg").read_bytes().startswith(b"<?xml")


@pytest.mark.parametrize("name", ["scores", "trajectory"])
def test_a_model_runs_on_the_device(
    name: str,
    difftool: Command,
    points_bundle: Path,
    cuda_runtime: SimpleNamespace,  # noqa: F811
) -> None:
    done = difftool("plot", name, points_bundle, "--backend", "onnxruntime-cuda", "--device", 1)
    assert done.code == 0, done.err
    assert [asked["device_id"] for asked in cuda_runtime.asked] == ["1"]


def test_a_program(difftool: Command, tiny_bundle: Path, tmp_path: Path) -> None:
    line = ("--sampler", "ddim", "--arg", "steps=7", "--out", "program.pdf")
    assert difftool("plot", "program", tiny_bundle, *line).code == 0
    figure = plot.draw_program(ddim(read_bundle(tiny_bundle).spec, steps=7))
    assert (tmp_path / "program.pdf").read_bytes() == plot.encode(figure, "pdf")


@pytest.mark.parametrize("name", ["trajectory", "program"])
def test_a_poor_program_is_said_and_drawn(name: str, difftool: Command, tiny_bundle: Path) -> None:
    line = ("plot", name, tiny_bundle, "--sampler", "ddim", "--steps", 2, "--force")
    done = difftool(*line)
    assert done.err.startswith("warning: with so few steps, 2, each divides the noise by ")
    (said,) = difftool(*line, "--json").json()["warnings"]
    assert done.err == f"warning: {said}\n"
    own = difftool("plot", name, tiny_bundle, "--force")
    assert own.err == ""


def test_force_replaces(difftool: Command, tiny_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "schedule.png").write_text("mine")
    assert difftool("plot", "schedule", tiny_bundle).code == 2
    assert (tmp_path / "schedule.png").read_text() == "mine"
    assert difftool("plot", "schedule", tiny_bundle, "--force").code == 0
    assert (tmp_path / "schedule.png").read_bytes().startswith(b"\x89PNG")


def test_trainings_are_drawn_by_their_names(difftool: Command, tmp_path: Path) -> None:
    for folder in ("a/run", "b/run", "other"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "metrics.jsonl").write_text('{"step": 7, "loss": 1, "lr": 1}\n')
    record = difftool("plot", "training", "a/run", "other", "--out", "x.svg", "--json").json()
    assert (record["out"], record["runs"]) == ("x.svg", {"run": 7, "other": 7})
    assert (tmp_path / "x.svg").read_bytes().startswith(b"<?xml")
    record = difftool("plot", "training", "a/run", "b/run", "--json").json()
    assert (record["out"], record["runs"]) == ("training.png", {"a/run": 7, "b/run": 7})


@pytest.mark.parametrize(
    ("line", "code", "message"),
    [
        ("training", 2, "Missing argument 'RUN...'"),
        ("training nowhere", 3, "nowhere has no metrics.jsonl"),
        ("scores {bundle}", 2, "samples of shape (1, 8, 8) are not points in the plane"),
        ("scores {points} --level 5", 2, "level 5 is not in the schedule"),
        ("scores {points} --level -1", 2, "level -1 is not in the schedule"),
        ("scores {points} --label 0", 2, "this model has no class labels"),
        ("scores", 2, "Missing argument 'MODEL'"),
        ("schedule {bundle} --out s.jpg", 2, "s.jpg does not end in a picture format"),
        ("schedule {bundle} --out schedule", 2, "schedule does not end in a picture format"),
        ("schedule {bundle} --out {bundle}/s.png", 2, "is a bundle, which holds nothing else"),
        ("schedule nowhere", 3, "no bundle at nowhere"),
        ("trajectory {bundle} -n 0", 2, "0 samples"),
        ("trajectory {bundle} --steps 99", 2, "99 steps on a schedule of 20 levels"),
        ("program {bundle} --sampler milstein", 2, "unknown sampler 'milstein'"),
        ("", 2, "Missing command"),
        ("curves", 2, "No such command 'curves'"),
    ],
)
def test_refusals_change_nothing(
    line: str, code: int, message: str, refuses: Refusal, tiny_bundle: Path, points_bundle: Path
) -> None:
    before = tree(tiny_bundle)
    filled = line.format(bundle=tiny_bundle, points=points_bundle)
    refuses(["plot", *filled.split()], code, message)
    assert tree(tiny_bundle) == before


def test_without_matplotlib_it_says_what_to_install(
    difftool: Command, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    done = difftool("plot", "schedule", tiny_bundle)
    done.refused(4, "", install_hint("plot"))


def test_a_refusal_loads_no_matplotlib(spawn: Command) -> None:
    loaded = spawn("plot", "schedule", "--out", "schedule.jpg", setup=SHOW_IMPORTS).err
    assert "'difftool.cli.plot'" in loaded
    assert "'matplotlib'" not in loaded
