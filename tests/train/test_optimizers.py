"""AdamW, and float16 with a scaler of the loss."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from difftool import checkpoint as ckpt
from difftool.errors import ArtefactError, CheckFailed, UsageError
from difftool.train import processes
from difftool.train.config import TrainConfig, apply_overrides
from tests.train.conftest import digests, records, run


def test_weight_decay_shrinks_all_weights(points_config: TrainConfig, tmp_path: Path) -> None:
    """A step of AdamW is one of Adam on weights that are smaller by lr * weight_decay."""
    flat = ("run.steps=1", "optimizer.decay=constant", "optimizer.lr=0.01")
    first, second = (
        load_file(run(points_config, tmp_path / name, *flat, *more) / ckpt.MODEL)
        for name, more in (
            ("adam", ()),
            ("adamw", ("optimizer.kind=adamw", "optimizer.weight_decay=0.5")),
        )
    )
    still = load_file(
        run(points_config, tmp_path / "still", *flat[:2], "optimizer.lr=1e-30") / ckpt.MODEL
    )
    assert first.keys() == second.keys()
    for name, begun in still.items():
        expected = first[name] - 0.01 * 0.5 * begun
        torch.testing.assert_close(second[name], expected, rtol=1e-5, atol=1e-6)


def test_adamw_goes_on_bit_for_bit_and_as_adam_not_at_all(
    points_config: TrainConfig, tmp_path: Path
) -> None:
    more = ("optimizer={kind='adamw',lr=0.01,weight_decay=0.1}",)
    run(points_config, tmp_path / "whole", *more)
    run(points_config, tmp_path / "parts", *more, "run.steps=4")
    run(points_config, tmp_path / "parts", *more)
    whole, parts = digests(tmp_path / "whole"), digests(tmp_path / "parts")
    assert all(whole[file] == parts[file] for file in (ckpt.MODEL, ckpt.EMA, ckpt.OPTIMIZER))
    with pytest.raises(UsageError, match=r"optimizer\.kind adamw, not adam; "):
        run(points_config, tmp_path / "parts", "run.steps=9")


def test_float16_needs_a_gpu(points_config: TrainConfig, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"run\.precision fp16 needs a GPU") as caught:
        run(points_config, tmp_path / "run", "run.precision=fp16")
    assert "set run.precision to no" in caught.value.hint
    assert list(tmp_path.iterdir()) == []
    processes.require_device("fp16", torch.device("cuda"))
    processes.require_device("bf16", torch.device("cpu"))


@pytest.fixture
def half(points_config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> TrainConfig:
    """Float16 on this CPU, which can do it slowly, and so stands for a GPU."""
    monkeypatch.setattr(processes, "require_device", lambda precision, device: None)
    return apply_overrides(
        points_config, ["run.precision=fp16", "optimizer.decay=constant", "optimizer.lr=1e-3"]
    )


def scale(folder: Path) -> tuple[float, int]:
    record = json.loads((ckpt.find_checkpoint(folder) / ckpt.OPTIMIZER_JSON).read_text())
    return record["scaler"]["scale"], record["updates"]


def test_float16_scales_the_loss_and_goes_on_with_its_scale(
    half: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first steps overflow, and are left out; the scale is halved each time."""
    made = torch.amp.GradScaler
    monkeypatch.setattr(
        torch.amp, "GradScaler", lambda device, enabled: made(device, 2.0**24, enabled=enabled)
    )
    run(half, tmp_path / "whole")
    found, updates = scale(tmp_path / "whole")
    assert found < 2.0**24
    assert 0 <= updates < 6
    assert all(norm < 1e6 for _, _, norm in records(tmp_path / "whole"))
    run(half, tmp_path / "parts", "run.steps=4")
    run(half, tmp_path / "parts")
    assert scale(tmp_path / "parts") == (found, updates)
    whole, parts = digests(tmp_path / "whole"), digests(tmp_path / "parts")
    assert all(whole[file] == parts[file] for file in (ckpt.MODEL, ckpt.EMA, ckpt.OPTIMIZER))


def test_float16_trains_as_float32_does(half: TrainConfig, tmp_path: Path) -> None:
    run(half, tmp_path / "half")
    run(half, tmp_path / "full", "run.precision=no")
    first, second = ([loss for _, loss, _ in records(tmp_path / name)] for name in ("half", "full"))
    assert first == pytest.approx(second, rel=0.05)
    assert first != second


def test_a_scale_that_is_lost_is_said(
    half: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = torch.amp.GradScaler
    monkeypatch.setattr(
        torch.amp, "GradScaler", lambda device, enabled: made(device, 0.5, enabled=enabled)
    )
    with pytest.raises(CheckFailed, match="gradients overflow float16 at step 1"):
        run(half, tmp_path / "run")


def test_a_mistyped_scale_is_refused(half: TrainConfig, tmp_path: Path) -> None:
    run(half, tmp_path, "run.steps=2")
    folder = ckpt.find_checkpoint(tmp_path)
    record = json.loads((folder / ckpt.OPTIMIZER_JSON).read_text())
    config = json.loads((folder / ckpt.CONFIG).read_text())
    for broken in ({**record, "scaler": {}}, {**record, "updates": 3}, {"kind": "adam"}):
        text = json.dumps(broken)
        (folder / ckpt.OPTIMIZER_JSON).write_text(text)
        digest = ckpt.file_sha256(folder / ckpt.OPTIMIZER_JSON)
        config["files"][ckpt.OPTIMIZER_JSON] = {"size": len(text), "sha256": digest}
        (folder / ckpt.CONFIG).write_text(json.dumps(config))
        with pytest.raises(ArtefactError, match="is not from this adam run"):
            run(half, tmp_path)
