"""PyTorch in the runtime: TorchScript out of a bundle, and what torch compiles of a step."""

import shutil
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from difftool.bundle import TORCHSCRIPT, read_bundle
from difftool.bundle.amend import with_files
from difftool.diffusion.features import Feature
from difftool.diffusion.samplers import ddpm, unipc
from difftool.errors import ArtefactError, MissingDependencyError
from difftool.export import export
from difftool.networks.trained import load_checkpoint
from difftool.runtime import Model, load
from difftool.runtime.edits import inpaint
from difftool.runtime.engine_cache import EngineCache
from difftool.runtime.opening import open_backend
from difftool.verify.compiled import jit_compiled
from difftool.verify.eager import Eager
from tests.reliability.backends import with_torchscript


def sha256_of_code(bundle: Path) -> str:
    """Return what a user names who trusts a bundle's step.ts."""
    return read_bundle(bundle).manifest.files[TORCHSCRIPT].sha256


@pytest.fixture(scope="module")
def scripted(
    tiny_bundle: Path, tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The tiny bundle with a step.ts that `export` did not make."""
    bundle = tmp_path_factory.mktemp("scripted") / "bundle"
    return with_torchscript(shutil.copytree(tiny_bundle, bundle), tiny_checkpoint).path


def test_torchscript_draws_the_samples_of_the_cpu(scripted: Path) -> None:
    trust = [sha256_of_code(scripted)]
    model = load(scripted, backend="torchscript", threads=1, max_batch=3, trust=trust)
    cpu = load(scripted, backend="onnxruntime-cpu", threads=1, max_batch=3)
    for sampler in (ddpm, unipc):  # one slot of history, and several
        program = sampler(model.spec, steps=6)
        runs = [opened.sample(program, n=4, seed=2) for opened in (model, cpu)]
        np.testing.assert_allclose(*runs, atol=1e-5)
    # The loop replaces D in every row if the step graph sets no known values.
    mask = np.zeros((1, 8, 8), np.float32)
    mask[:, :4] = 1
    edit = inpaint(np.full((1, 8, 8), 0.5, np.float32), mask)
    runs = [opened.sample(program, n=4, edit=edit) for opened in (model, cpu)]
    np.testing.assert_allclose(*runs, atol=1e-5)


@pytest.mark.usefixtures("cache")
def test_ones_own_needs_no_trust_and_takes_known_values_or_none(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    known = (Feature.KNOWN,)
    out = export(tiny_checkpoint, tmp_path / "own", features=known, torchscript=True).path
    edit = inpaint(np.full((1, 8, 8), 0.5, np.float32), np.eye(8, dtype=np.float32)[None])
    models = [load(out, backend=name, threads=1) for name in ("torchscript", "onnxruntime-cpu")]
    program = unipc(models[0].spec, steps=4)
    for asked in (edit, None):
        runs = [model.sample(program, n=2, edit=asked) for model in models]
        np.testing.assert_allclose(*runs, atol=1e-5)
    EngineCache().clear()
    with pytest.raises(ArtefactError, match="was made elsewhere"):
        load(out, backend="torchscript", threads=1)


def test_it_is_opened_if_named_and_trusted(scripted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = AssertionError("step.ts was opened")
    monkeypatch.setattr(torch.jit, "load", Mock(side_effect=opened))
    bundle = read_bundle(scripted)
    assert open_backend(bundle, None, threads=1).name != "torchscript"
    sha256 = sha256_of_code(scripted)
    with pytest.raises(ArtefactError, match=rf"was made elsewhere.* {sha256} .*`trust`"):
        open_backend(bundle, "torchscript", threads=1, trusted=["0" * 64])
    with pytest.raises(AssertionError, match=r"step\.ts was opened"):
        open_backend(bundle, "torchscript", threads=1, trusted=[sha256])


@pytest.mark.usefixtures("cache")
def test_an_export_does_without_a_cache_that_it_cannot_write(
    points_checkpoint: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "cache").touch()
    out = export(points_checkpoint, tmp_path / "own", torchscript=True).path
    assert f"to run step.ts here, trust its sha256 {sha256_of_code(out)}" in caplog.text


def test_none_or_a_damaged_one(scripted: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingDependencyError, match=r"has no step\.ts .*`torchscript`"):
        load(tiny_bundle, backend="torchscript")
    damaged = Path(shutil.copytree(scripted, tmp_path / "damaged"))
    with_files(read_bundle(damaged), {TORCHSCRIPT: b"not a program"})
    with pytest.raises(ArtefactError, match=r"torch refuses .*step\.ts"):
        load(damaged, backend="torchscript", trust=[sha256_of_code(damaged)])


def test_torch_compiles_the_step_module(
    tiny_bundle: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it is handed over to torch.compile, which takes a minute and a C++ compiler."""
    compile = Mock(side_effect=lambda module, **_: module)
    monkeypatch.setattr(torch, "compile", compile)
    loaded = load_checkpoint(tiny_checkpoint)
    bundle = read_bundle(tiny_bundle)
    for sampler in (ddpm, unipc):
        program = sampler(loaded.spec, steps=5)
        compiled = jit_compiled(slots=program.history, mode="max-autotune")
        backends = [Eager(loaded.network, loaded.spec, compiled=each) for each in (None, compiled)]
        runs = [Model(bundle, backend, max_batch=4).sample(program, n=3) for backend in backends]
        np.testing.assert_allclose(*runs, atol=1e-6)
    asked = [call.kwargs for call in compile.call_args_list]
    assert asked == [{"mode": "max-autotune", "dynamic": False}] * 2
