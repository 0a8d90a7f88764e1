"""Checkpoints come back as they were written, and damage is named before anything is built."""

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from difftool import checkpoint as ckpt
from difftool.errors import ArtefactError, UsageError
from difftool.files import file_sha256
from difftool.networks.trained import load_checkpoint
from difftool.train.config import TrainConfig, parse
from difftool.train.trainer import train
from tests.recipes import POINTS

Change = Callable[[dict[str, Any]], None]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "run"
    train(parse(POINTS), folder, progress=False)
    return folder


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A run with checkpoints of steps 4 and 6."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


@pytest.fixture
def newest(run: Path) -> Path:
    return ckpt.list_checkpoints(run)[-1]


def edit_config(folder: Path, change: Change) -> None:
    config = json.loads((folder / ckpt.CONFIG).read_text())
    change(config)
    (folder / ckpt.CONFIG).write_text(json.dumps(config))


def test_a_run_keeps_its_newest_checkpoints(run: Path) -> None:
    names = [path.name for path in ckpt.list_checkpoints(run)]
    assert names == ["step-000000004", "step-000000006"]
    loaded = load_checkpoint(run)
    assert (loaded.step, loaded.weights, loaded.path.name) == (6, "ema", names[-1])
    assert load_checkpoint(run / "checkpoints" / names[0]).step == 4


def test_both_weights_load(newest: Path) -> None:
    for ema, file in ((True, ckpt.EMA), (False, ckpt.MODEL)):
        loaded = load_checkpoint(newest, ema=ema)
        for name, value in load_file(newest / file).items():
            assert torch.equal(loaded.network.state_dict()[name], value)
        assert not loaded.network.training
    assert loaded.weights == "raw"
    assert loaded.spec.shape == (2,)


def test_weights_alone_do_not_resume(run: Path, points_config: TrainConfig, tmp_path: Path) -> None:
    only, loaded = tmp_path / "small" / "checkpoints" / "step-000000006", load_checkpoint(run)
    save = partial(
        ckpt.save_checkpoint,
        only,
        step=loaded.step,
        spec=loaded.spec,
        network=loaded.call,
        sampler=loaded.sampler,
        training=loaded.config["training"],
        tensors={ckpt.EMA: loaded.network.state_dict()},
    )
    save()
    assert {path.name for path in only.iterdir()} == {ckpt.CONFIG, ckpt.EMA}
    x = torch.ones(3, 2)
    cond = torch.zeros(3)
    first, second = (load_checkpoint(path).network for path in (run, only))
    assert torch.equal(first(x, first.condition(cond)), second(x, second.condition(cond)))
    with pytest.raises(ArtefactError, match=r"no model\.safetensors"):
        load_checkpoint(only, ema=False)
    with pytest.raises(UsageError, match="exists"):
        save()
    with pytest.raises(ArtefactError, match="weights only"):
        train(points_config, tmp_path / "small", progress=False)


@pytest.mark.parametrize("name", [ckpt.EMA, ckpt.MODEL, ckpt.OPTIMIZER, ckpt.OPTIMIZER_JSON])
@pytest.mark.parametrize("damage", ["flip", "cut", "delete"])
def test_damage_is_named_and_the_one_before_is_found(
    run: Path, newest: Path, name: str, damage: str
) -> None:
    data = bytearray((newest / name).read_bytes())
    data[len(data) // 2] ^= 1
    if damage == "delete":
        (newest / name).unlink()
    else:
        (newest / name).write_bytes(data if damage == "flip" else data[:-1])
    with pytest.raises(ArtefactError, match=name):
        load_checkpoint(newest)
    assert load_checkpoint(run).step == 4
    assert ckpt.find_checkpoint(run).name == "step-000000004"


def test_tensors_that_do_not_fit_are_all_named(newest: Path) -> None:
    path = newest / ckpt.EMA
    tensors = load_file(path)
    del tensors["out.bias"]
    save_file({**tensors, "extra": torch.zeros(2), "out.weight": torch.zeros(3, 8)}, path)
    entry = {"size": path.stat().st_size, "sha256": file_sha256(path)}
    edit_config(newest, lambda config: config["files"].update({ckpt.EMA: entry}))
    with pytest.raises(ArtefactError) as caught:
        load_checkpoint(newest)
    for part in ("missing: out.bias", "surplus: extra", "out.weight [3, 8] for [2, 8]"):
        assert part in str(caught.value)
    assert caught.value.exit_code == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("format"), "is not a checkpoint of difftool .*difftool import"),
        (lambda c: c.update(format=2), "format 2.*newer difftool"),
        (lambda c: c.update(format="1"), "lacks or mistypes"),
        (lambda c: c.update(step=-1), "lacks or mistypes"),
        (lambda c: c.pop("files"), "lacks or mistypes 'files'"),
        (lambda c: c.pop("network"), "lacks or mistypes 'network'"),
        (lambda c: c.update(network=[]), "does not describe a model"),
        (lambda c: c["network"]["arguments"].update(hidden=10**12), "does not describe a model"),
        (lambda c: c["network"].update(kind="gan"), "unknown network 'gan'"),
        (lambda c: c["network"]["arguments"].update(hidden=16), "does not fit the network"),
        (lambda c: c["spec"].update(parameterization="noise"), "unknown parameterization"),
        (lambda c: c["files"].update({"../x": {"size": 0, "sha256": ""}}), "not a plain file name"),
    ],
)
def test_configurations(newest: Path, change: Change, message: str) -> None:
    edit_config(newest, change)
    with pytest.raises(ArtefactError, match=message) as caught:
        load_checkpoint(newest)
    assert "\n" not in str(caught.value)


def test_what_is_no_checkpoint(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent", tmp_path / ("long" * 999)):
        with pytest.raises(ArtefactError, match="not a checkpoint"):
            load_checkpoint(path)
    (tmp_path / ckpt.CONFIG).write_text("{")
    with pytest.raises(ArtefactError, match="not valid JSON"):
        load_checkpoint(tmp_path)


def test_links_are_refused(newest: Path, tmp_path: Path) -> None:
    shutil.move(newest / ckpt.EMA, tmp_path / "elsewhere")
    (newest / ckpt.EMA).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ArtefactError, match="not there"):
        load_checkpoint(newest)


def test_what_somebody_put_into_an_old_checkpoint_stays(run: Path, newest: Path) -> None:
    folder = run / "checkpoints"
    old = ckpt.list_checkpoints(run)[0]
    (old / "bundle").mkdir()
    (old / "bundle" / "bundle.json").write_text("{}")
    (folder / "step-by-step").mkdir()
    (folder / ".step-3.backup").mkdir()
    ckpt.prune(newest, keep=1)
    names = {".step-3.backup", "step-by-step", old.name, newest.name}
    assert {path.name for path in folder.iterdir()} == names
    assert [path.name for path in old.iterdir()] == ["bundle"]
    assert (old / "bundle" / "bundle.json").read_text() == "{}"


def test_leftovers_of_a_killed_process_go(run: Path) -> None:
    leftover = run / "checkpoints" / ".step-000000005.abc"
    leftover.mkdir()
    (leftover / ckpt.MODEL).write_bytes(b"half")
    assert load_checkpoint(run).step == 6
    ckpt.prune(ckpt.find_checkpoint(run), keep=1)
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step-000000006"]
