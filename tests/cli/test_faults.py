"""Faults: one line and a hint, the right exit code, and nothing changed on disk."""

import errno
import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from difftool.cli.faults import fault_of
from difftool.errors import CheckFailed
from tests.cli.conftest import Command, Done, tree

USAGE, ARTEFACT = 2, 3
Places = Mapping[str, Path]
NARRATION = "training recipe into runs/recipe\n"

BAD_LINES = [
    # unknown or missing words
    ("sampel", USAGE, "No such command 'sampel'"),
    ("sample --stepz 3", USAGE, "No such option: --stepz"),
    ("sample a b", USAGE, "unexpected extra argument"),
    ("export {checkpoint}", USAGE, "Missing option '--out'"),
    ("inspect", USAGE, "Missing argument 'PATH'"),
    # unknown option values
    ("sample {bundle} --format jpg", USAGE, "'jpg' is not one of 'png'"),
    ("sample {bundle} --sampler milstein", USAGE, "unknown sampler 'milstein'"),
    ("sample {bundle} --backend abacus", USAGE, "unknown backend 'abacus'"),
    ("sample {bundle} --arg colour=1", USAGE, "ddpm takes no 'colour'"),
    ("sample {bundle} --arg variance=medium", USAGE, "unknown variance 'medium'"),
    ("sample {bundle} --arg clip=maybe", USAGE, "clip is 'maybe'"),
    ("sample {bundle} --arg clip", USAGE, "--arg 'clip' assigns nothing"),
    ("sample {bundle} --eta 0.5", USAGE, "ddpm takes no 'eta'"),
    ("train cats", USAGE, "'cats' is not one of 'ddpm', 'ncsn'"),
    ("train ddpm --preset nothing", USAGE, "unknown preset 'nothing'"),
    ("train ddpm --config {recipe}", USAGE, "a recipe for ncsn, not ddpm"),
    ("train ncsn --config {recipe} --preset toy", USAGE, "both given"),
    ("train ncsn --config {recipe} --set run.speed=1", USAGE, "run.speed"),
    ("train ncsn --config {recipe} --set fast", USAGE, "'fast' assigns nothing"),
    # numbers without a meaning
    ("sample {bundle} --steps 0", USAGE, "0 steps on a schedule of 20 levels"),
    ("sample {bundle} --steps -5", USAGE, "-5 steps"),
    ("sample {bundle} --steps 21", USAGE, "21 steps on a schedule of 20 levels"),
    ("sample {bundle} --sampler ddim --steps 21", USAGE, "21 steps on a schedule of 20"),
    ("sample {points} --steps 7", USAGE, "7 steps do not divide among 5 noise levels"),
    ("sample {points} --steps 1000000000000", USAGE, "1000000000000 steps"),
    ("sample {bundle} --steps many", USAGE, "Invalid value for '--steps'"),
    ("sample {bundle} --sampler ddim --steps 9 --eta nan", USAGE, "eta is nan"),
    ("sample {bundle} --sampler ddim --steps 9 --eta -1", USAGE, "eta -1.0"),
    ("sample {points} --arg step_size=NaN", USAGE, "step_size is nan"),
    ("sample {points} --arg step_size=-1", USAGE, "step size -1 is not positive"),
    ("sample {bundle} -n 0", USAGE, "0 samples"),
    ("sample {bundle} -n -4", USAGE, "-4 samples"),
    ("sample {bundle} --seed -1", USAGE, "seed -1"),
    ("sample {bundle} --seed 18446744073709551616", USAGE, "seed 18446744073709551616"),
    ("sample {bundle} --threads 0", USAGE, "0 threads"),
    ("sample {bundle} --max-batch -2", USAGE, "a batch of -2"),
    ("verify {bundle} {checkpoint} -n 0", USAGE, "0 samples"),
    ("train ncsn --config {recipe} --steps 0", USAGE, "run.steps"),
    ("train ncsn --config {recipe} --set optimizer.lr=nan", USAGE, "optimizer.lr"),
    # outputs
    ("sample {bundle} --out taken.png", USAGE, "taken.png exists"),
    ("sample {bundle} --out folder", USAGE, "folder is a folder"),
    ("sample {bundle} --out grid.jpg", USAGE, "grid.jpg names no format"),
    ("sample {bundle} --out grid", USAGE, "grid names no format"),
    ("sample {points} --out grid.png", USAGE, "samples of shape (2,) are not images"),
    ("sample {bundle} --out {bundle}/grid.png", USAGE, "is a bundle, which holds nothing else"),
    ("sample {bundle} --out taken.png/grid.png", 5, "cannot write into"),
    ("program {bundle} --out taken.png", USAGE, "taken.png exists"),
    ("export {checkpoint} --out {bundle}", USAGE, "exists"),
    ("export {checkpoint} --out folder --force", USAGE, "folder is not a bundle"),
    # files that are not there, or not what they should be
    ("sample nowhere", ARTEFACT, "no bundle at nowhere"),
    ("sample folder", ARTEFACT, "folder is not a bundle"),
    ("sample taken.png", ARTEFACT, "taken.png is not a bundle"),
    ("sample {checkpoint}", ARTEFACT, "is not a bundle"),
    ("sample {newer_bundle}", ARTEFACT, "has bundle format 2; this difftool reads up to 1"),
    ("sample {damaged_bundle}", ARTEFACT, "step.onnx differs from its digest"),
    ("export nowhere --out b", ARTEFACT, "nowhere is not a checkpoint"),
    ("export {bundle} --out b", ARTEFACT, "is not a checkpoint"),
    ("export {misfit} --out b", ARTEFACT, "does not fit the network of its config.json"),
    ("inspect {misfit}", ARTEFACT, "does not fit the network of its config.json"),
    ("inspect {newer_checkpoint}", ARTEFACT, "checkpoint format 2"),
    ("inspect nowhere", ARTEFACT, "there is no nowhere"),
    ("inspect folder", ARTEFACT, "folder is not a bundle, a checkpoint or a run"),
    ("verify {bundle} {points_checkpoint}", ARTEFACT, "was exported from other weights"),
    ("verify nowhere {checkpoint}", ARTEFACT, "no bundle at nowhere"),
    ("program nowhere", ARTEFACT, "no bundle at nowhere"),
    ("train ncsn --config nowhere.toml", USAGE, "cannot read nowhere.toml"),
    ("train ncsn --config taken.png", USAGE, "taken.png is not valid TOML"),
    ("train ncsn --config {recipe} --set data.source=nowhere.parquet", USAGE, "nowhere.parquet"),
]


@pytest.fixture(scope="session")
def places(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_bundle: Path,
    tiny_checkpoint: Path,
    points_bundle: Path,
    points_checkpoint: Path,
    toy_recipe: str,
) -> Places:
    """Good files by name, and bad ones made from them."""
    root = tmp_path_factory.mktemp("bad")
    newer_bundle = _changed_json(tiny_bundle, root / "newer", "bundle.json", ["format"], 2)
    damaged = shutil.copytree(tiny_bundle, root / "damaged")
    step = damaged / "step.onnx"
    step.write_bytes(step.read_bytes()[:-1] + b"?")
    checkpoint = next((tiny_checkpoint / "checkpoints").iterdir())
    widths = ["network", "arguments", "channels"]
    recipe = root / "recipe.toml"
    recipe.write_text(toy_recipe)
    return {
        "bundle": tiny_bundle,
        "checkpoint": tiny_checkpoint,
        "points": points_bundle,
        "points_checkpoint": points_checkpoint,
        "newer_bundle": newer_bundle,
        "damaged_bundle": damaged,
        "misfit": _changed_json(checkpoint, root / "misfit", "config.json", widths, 16),
        "newer_checkpoint": _changed_json(checkpoint, root / "new", "config.json", ["format"], 2),
        "recipe": recipe,
    }


def _changed_json(folder: Path, copy: Path, name: str, keys: list[str], new: object) -> Path:
    """Return a copy of a folder, with one value in one of its JSON files replaced."""
    shutil.copytree(folder, copy)
    document = json.loads((copy / name).read_text())
    value = document
    for key in keys[:-1]:
        value = value[key]
    value[keys[-1]] = new
    (copy / name).write_text(json.dumps(document))
    return copy


@pytest.mark.parametrize(("line", "code", "message"), BAD_LINES)
def test_bad_input(
    line: str, code: int, message: str, places: Places, difftool: Command, tmp_path: Path
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "taken.png").write_text("mine")
    watched = [tmp_path, places["bundle"]]
    before = [tree(folder) for folder in watched]

    done = difftool(*line.format(**places).split())

    Done(done.code, done.out, done.err.removeprefix(NARRATION)).refused(code, message)
    assert [tree(folder) for folder in watched] == before


@pytest.mark.parametrize(
    ("raised", "code", "message", "hint"),
    [
        (CheckFailed("off", "look"), 1, "off", "look"),
        (KeyboardInterrupt(), 130, "interrupted", ""),
        (MemoryError(), 5, "out of memory", "fewer samples"),
        (OSError(errno.ENOSPC, "No space left on device", "a.npz"), 5, "a.npz: No space", "free"),
        (ModuleNotFoundError(name="datasets"), 4, "datasets", "pip install 'difftool[data]'"),
        (ModuleNotFoundError(name="onnx.helper"), 4, "onnx", "pip install 'difftool[compile]'"),
        (ModuleNotFoundError(name="torch"), 4, "torch", "pip install 'difftool[export]'"),
        (ModuleNotFoundError("no x", name="x"), 101, "a bug in difftool: ModuleNotFound", "report"),
        (ZeroDivisionError("division by zero"), 101, "ZeroDivisionError: division", "--debug"),
    ],
)
def test_an_exception(raised: BaseException, code: int, message: str, hint: str) -> None:
    fault = fault_of(raised, ["verify"])
    assert fault.exit_code == code
    assert message in fault.message
    assert hint in fault.hint


@pytest.mark.parametrize("command", ["train", "likelihood"])
def test_without_torch_training_asks_for_its_own_extra(command: str) -> None:
    assert "difftool[train]" in fault_of(ModuleNotFoundError(name="torch"), [command]).hint
