"""Exporting: what is written, what is chosen, and what is refused."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch

import difftool
from difftool.bundle import read_bundle
from difftool.diffusion.calls import SamplerCall
from difftool.errors import ArtefactError, UsageError
from difftool.export import export
from difftool.export.onnx import conditioner_width, example_inputs, step_module
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


def test_torchscript_is_the_step_module(points_checkpoint: Path, raw_bundle: Path) -> None:
    loaded = load_checkpoint(points_checkpoint, ema=False)
    module = step_module(loaded.network, loaded.spec)
    width = conditioner_width(loaded.network, loaded.spec)
    generator = torch.Generator().manual_seed(0)
    inputs = tuple(
        torch.randn(value.shape, generator=generator) if value.is_floating_point() else value
        for value in example_inputs(module, loaded.spec, width)
    )
    inputs[4][:, 0] = 1.0  # the cond column is an index
    traced = torch.jit.load(raw_bundle / "step.ts")
    for expected, found in zip(module(*inputs), traced(*inputs), strict=True):
        assert torch.equal(found, expected)


def test_a_traced_image_model_takes_any_batch(tiny_checkpoint: Path) -> None:
    loaded = load_checkpoint(tiny_checkpoint)
    module = step_module(loaded.network, loaded.spec)
    width = conditioner_width(loaded.network, loaded.spec)
    traced = torch.jit.load(io.BytesIO(torchscript(module, loaded.spec, width)))
    table, cond_table = example_inputs(module, loaded.spec, width)[4:]
    five = (torch.ones(5, 1, 8, 8), torch.zeros(2, 5, 1, 8, 8), torch.zeros(5, dtype=torch.int64))
    inputs = (*five, torch.ones(5, 1, 8, 8), table, cond_table)
    for expected, found in zip(module(*inputs), traced(*inputs), strict=True):
        assert torch.equal(found, expected)


def test_an_existing_bundle_is_replaced_only_by_force(raw_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="exists"):
        export(tmp_path, raw_bundle)
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.tex").write_text("text")
    with pytest.raises(UsageError, match="is not a bundle, so it is not replaced"):
        export(tmp_path, precious, force=True)
    assert (precious / "thesis.tex").read_text() == "text"


def test_a_failed_export_leaves_nothing(points_checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown sampler"):
        export(points_checkpoint, tmp_path / "bundle", sampler=SamplerCall("magic"))
    with pytest.raises(ArtefactError, match="is not a checkpoint"):
        export(tmp_path / "absent", tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []
