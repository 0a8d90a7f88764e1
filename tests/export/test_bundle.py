"""Exporting: what is written, what is chosen, and what is refused."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import difftool
from difftool.bundle import read_bundle
from difftool.diffusion.calls import SamplerCall
from difftool.diffusion.columns import Column
from difftool.errors import ArtefactError, UsageError
from difftool.export import export
from difftool.export.onnx import example_inputs
from difftool.export.step import StepModule
from difftool.export.torchscript import torchscript
from difftool.networks.trained import load_checkpoint


@pytest.fixture(scope="module")
def raw_bundle(points_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The points model with raw weights, TorchScript, and another default program."""
    out = tmp_path_factory.mktemp("raw") / "bundle"
    short = SamplerCall("ddim", {"steps": 4})
    return export(points_checkpoint, out, ema=False, torchscript=True, sampler=short).path


def test_ema_weights_are_the_default(points_bundle: Path, raw_bundle: Path) -> None:
    assert read_bundle(points_bundle).manifest.provenance.weights == "ema"
    assert read_bundle(raw_bundle).manifest.provenance.weights == "raw"
    averaged, raw = difftool.load(points_bundle), difftool.load(raw_bundle)
    program = averaged.default_program()
    assert np.abs(averaged.sample(program, n=2) - raw.sample(program, n=2)).max() > 1e-3


def test_the_default_program_can_be_chosen(raw_bundle: Path, points_bundle: Path) -> None:
    for bundle, name in (
        (raw_bundle, "ddim(steps=4, eta=0.0"),
        (points_bundle, "annealed_langevin(steps=50, step_size=0.0001, convention='paper'"),
    ):
        assert read_bundle(bundle).default_program().name.startswith(name)


@pytest.mark.parametrize("kind", ["points", "images"])
def test_torchscript_is_the_step_module(
    kind: str, points_checkpoint: Path, tiny_checkpoint: Path, raw_bundle: Path
) -> None:
    """That of points as `export` writes it; both take a batch of another size than the traced."""
    loaded = load_checkpoint(points_checkpoint if kind == "points" else tiny_checkpoint, ema=False)
    module = StepModule(loaded.network, loaded.spec)
    written = kind == "points" and (raw_bundle / "step.ts").read_bytes()
    traced = torch.jit.load(io.BytesIO(written or torchscript(module)))
    random = torch.Generator().manual_seed(0)
    x, noise, *history = torch.randn(4, 5, *loaded.spec.shape, generator=random)
    table, cond_table = (
        torch.randn(value.shape, generator=random) for value in example_inputs(module)[4:]
    )
    table[:, [Column.COND, Column.NULL_COND]] = 1.0
    table[:, [Column.CLIP_LOW, Column.CLIP_HIGH]] = torch.tensor([-9.0, 9.0])
    inputs = (x, torch.stack(history), torch.arange(5), noise, table, cond_table)
    for expected, found in zip(module(*inputs), traced(*inputs), strict=True):
        assert torch.equal(found, expected)


def test_an_existing_bundle_is_replaced_only_by_force(raw_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="exists"):
        export(tmp_path, raw_bundle)
    (tmp_path / "thesis.tex").write_text("text")
    with pytest.raises(UsageError, match="is not a bundle, so it is not replaced"):
        export(tmp_path, tmp_path, force=True)
    assert (tmp_path / "thesis.tex").read_text() == "text"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"sampler": SamplerCall("magic")}, "unknown sampler"),
        ({"features": ("magic",)}, "unknown feature 'magic'"),
        ({"checkpoint": "absent"}, "is not a checkpoint"),
        (
            {"features": ("guidance",)},
            r"labels \(train one with data\.labels and loss\.label_dropout",
        ),
    ],
)
def test_a_failed_export_leaves_nothing(
    wrong: dict[str, Any], message: str, points_checkpoint: Path, tmp_path: Path
) -> None:
    arguments = {"checkpoint": points_checkpoint, **wrong}
    with pytest.raises((ArtefactError, UsageError), match=message) as caught:
        export(out=tmp_path / "bundle", **arguments)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []
