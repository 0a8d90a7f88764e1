"""A training that starts from the weights of a checkpoint."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from difftool import checkpoint as ckpt
from difftool.errors import ArtefactError, UsageError
from difftool.networks import raw_output
from difftool.networks.trained import load_checkpoint
from difftool.train.config import TrainConfig, apply_overrides
from tests.train.conftest import digests, run

STILL = ("run.steps=1", "optimizer.lr=1e-30", "optimizer.warmup=0")  # a step that moves nothing


@pytest.fixture
def trained(images_config: TrainConfig, tmp_path: Path) -> Path:
    """A short run whose average differs from its weights."""
    run(images_config, tmp_path / "first", "ema.warmup=false", "ema.decay=0.5")
    return tmp_path / "first"


def begun(path: Path) -> tuple[str, str]:
    return "network.init=" + json.dumps(str(path)), "data.flip=false"


def test_it_starts_from_the_average(
    images_config: TrainConfig, trained: Path, tmp_path: Path
) -> None:
    found = run(images_config, tmp_path / "second", *begun(trained), *STILL)
    average = load_file(ckpt.find_checkpoint(trained) / ckpt.EMA)
    for file in (ckpt.MODEL, ckpt.EMA):
        for name, value in load_file(found / file).items():
            torch.testing.assert_close(value, average[name], rtol=0, atol=1e-20)


def test_the_null_label_changes_nothing_at_first(
    labels_config: TrainConfig, trained: Path, tmp_path: Path
) -> None:
    found = load_checkpoint(run(labels_config, tmp_path / "second", *begun(trained), *STILL))
    before = load_checkpoint(trained)
    x, cond = torch.randn(3, 1, 8, 8), torch.tensor([0.0, 5.0, 19.0])
    expected = raw_output(before.network, x, cond)
    outputs = [raw_output(found.network, x, cond, torch.full((3,), each)) for each in (0, 9, 10)]
    torch.testing.assert_close(outputs[-1], expected)
    assert not torch.allclose(outputs[0], outputs[1])


def test_labels_that_are_there_are_kept(labels_config: TrainConfig, tmp_path: Path) -> None:
    first = run(labels_config, tmp_path / "first")
    second = run(labels_config, tmp_path / "second", *begun(first), *STILL)
    old, new = (load_checkpoint(each).network.label_embedding.weight for each in (first, second))
    torch.testing.assert_close(new, old)


def test_stopped_and_resumed_it_needs_the_start_no_more(
    images_config: TrainConfig, trained: Path, tmp_path: Path
) -> None:
    start, constant = begun(trained), "optimizer.decay=constant"
    run(images_config, tmp_path / "whole", *start, constant)
    run(images_config, tmp_path / "parts", *start, constant, "run.steps=2")
    shutil.rmtree(trained)
    run(images_config, tmp_path / "parts", *start, constant)
    whole, parts = digests(tmp_path / "whole"), digests(tmp_path / "parts")
    for file in (ckpt.MODEL, ckpt.EMA, ckpt.OPTIMIZER):
        assert parts[file] == whole[file]


def test_weights_of_another_kind_of_model_are_taken_with_a_warning(
    images_config: TrainConfig, trained: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run(images_config, tmp_path / "same", *begun(trained), *STILL)
    assert caplog.messages == []
    other = ("network.parameterization=v", "schedule.beta_end=0.5")
    run(images_config, tmp_path / "other", *begun(trained), *other, *STILL)
    (said,) = caplog.messages
    assert "first has parameterization epsilon, not v; schedule.beta_end 0.4, not 0.5: its" in said


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("network.arguments.channels=16", r"unet does not fit .*conv_in\.weight is \[8, 1, 3, 3\]"),
        ("network.arguments.blocks=2", r"missing.*; and \d+ more"),
        ("network.arguments.attention=[0]", r"is missing"),
    ],
)
def test_a_network_of_another_size_is_refused_before_anything_is_written(
    images_config: TrainConfig, trained: Path, tmp_path: Path, override: str, message: str
) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        run(images_config, tmp_path / "second", *begun(trained), override)
    assert "difftool inspect" in caught.value.hint
    assert not (tmp_path / "second").exists()


def test_what_is_no_checkpoint_is_refused(images_config: TrainConfig, tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="nowhere is not a checkpoint"):
        run(images_config, tmp_path / "run", *begun(tmp_path / "nowhere"))
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_of_weights_alone_is_a_start(
    images_config: TrainConfig, trained: Path, tmp_path: Path
) -> None:
    """An import has one file of weights, no optimizer and no training."""
    loaded = load_checkpoint(trained)
    imported = tmp_path / "imported"
    ckpt.save_checkpoint(
        imported,
        step=0,
        spec=loaded.spec,
        network=loaded.call,
        sampler=loaded.sampler,
        training=None,
        tensors={ckpt.MODEL: loaded.network.state_dict()},
    )
    found = run(images_config, tmp_path / "second", *begun(imported), *STILL)
    for name, value in load_checkpoint(found).network.state_dict().items():
        torch.testing.assert_close(value, loaded.network.state_dict()[name])
    assert apply_overrides(images_config, begun(imported)).network.init == str(imported)
