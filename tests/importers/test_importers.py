"""Files of every format, imported and exported, compute what their authors' code computed."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from difftool.bundle import read_bundle
from difftool.diffusion.builder import ProgramBuilder
from difftool.diffusion.samplers import annealed_langevin, compile_program
from difftool.diffusion.spec import ModelSpec
from difftool.export import export
from difftool.importers import import_checkpoint
from difftool.networks.trained import Checkpoint, load_checkpoint
from difftool.runtime.opening import open_backend
from difftool.runtime.protocols import Backend, Floats
from difftool.verify.eager import Eager
from tests.importers.conftest import Save, near, run, words
from tests.oracles.bfloat16 import require_kernels_of_bfloat16
from tests.oracles.foreseen import require_all_foreseen
from tests.oracles.plain_score_sde import Plain

RUNS = ("ncsn_v1_mnist28", "improved_diffusion_learned_sigma")  # a whole run is recorded
NAMES = (*RUNS, "ncsn_v2_cifar32", "ddpm_pesser16")
WHOLE_RUN = 2e-3  # of the largest output

Arrays = dict[str, np.ndarray]


@pytest.fixture(scope="session", params=NAMES)
def checkpoint(
    request: pytest.FixtureRequest, shared: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A golden folder as a checkpoint of ours."""
    out = tmp_path_factory.mktemp("golden") / request.param
    import_checkpoint(shared / "golden" / request.param, out)
    return out


@pytest.fixture(scope="session")
def bundle(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, exported."""
    return export(checkpoint, tmp_path_factory.mktemp("bundle") / checkpoint.name).path


@pytest.fixture(scope="session")
def recorded(checkpoint: Path, shared: Path) -> Arrays:
    """Inputs and outputs of the authors' code."""
    with np.load(shared / "golden" / checkpoint.name / "io.npz", allow_pickle=False) as arrays:
        return dict(arrays)


@pytest.fixture(scope="session")
def loaded(checkpoint: Path) -> Checkpoint:
    """The same, read back."""
    return load_checkpoint(checkpoint)


@pytest.fixture(params=["torch", "onnxruntime-cpu"])
def backend(request: pytest.FixtureRequest, loaded: Checkpoint) -> Backend:
    """The imported model in PyTorch, and its bundle on ONNX Runtime."""
    if request.param == "torch":
        return Eager(loaded.network, loaded.spec)
    return open_backend(read_bundle(request.getfixturevalue("bundle")), request.param, threads=1)


def test_one_evaluation(backend: Backend, loaded: Checkpoint, recorded: Arrays) -> None:
    spec, unit = loaded.spec, np.float64(1)
    if "labels" in recorded:
        levels, expected = len(spec.schedule) - 1 - recorded["labels"], recorded["score"]
        if spec.parameterization == "scaled_score":
            unit = recorded["sigmas"][recorded["labels"]].reshape(-1, 1, 1, 1)
    else:
        levels = recorded["t_original" if "t_original" in recorded else "t"]
        expected = recorded["output" if "output" in recorded else "eps"]
    actual = network_output(backend, spec, recorded["x"], levels.tolist())
    assert near(actual, expected * unit)
    assert near(actual / unit, expected)


def test_every_size_in_the_graphs_is_foreseen(bundle: Path) -> None:
    require_all_foreseen(bundle)


def test_onnx_runtime_has_all_kernels_of_bfloat16_on_gpus(bundle: Path) -> None:
    require_kernels_of_bfloat16(bundle)


def test_the_levels_are_the_recorded_ones(loaded: Checkpoint, recorded: Arrays) -> None:
    if "sigmas" in recorded:
        sigmas = loaded.spec.schedule.sigma[::-1]
        assert np.allclose(sigmas, recorded["sigmas"], rtol=1e-5, atol=0)
    elif "timestep_map" in recorded:
        visited = compile_program(loaded.spec, loaded.sampler).conds / loaded.spec.conds(1)
        assert np.array_equal(visited.round(), recorded["timestep_map"])
    else:
        assert str(loaded.spec.schedule) == "linear(steps=1000, beta_start=0.0001, beta_end=0.02)"


@pytest.mark.parametrize("checkpoint", RUNS, indirect=True)
def test_a_whole_run(backend: Backend, loaded: Checkpoint, recorded: Arrays) -> None:
    if "loop_noise" in recorded:  # learned variance; the default program is that of the flags
        program, prefix = compile_program(loaded.spec, loaded.sampler), "loop"
    else:
        steps, size = int(recorded["ald_steps_each"]), float(recorded["ald_step_lr"])
        steps *= len(loaded.spec.schedule)
        program = annealed_langevin(loaded.spec, steps=steps, step_size=size, denoise=False)
        prefix = "ald"
    start, noise, expected = (recorded[f"{prefix}_{part}"] for part in ("init", "noise", "final"))
    assert near(run(backend, program, start, noise), expected, WHOLE_RUN)


def network_output(backend: Backend, spec: ModelSpec, x: Floats, levels: list[int]) -> Floats:
    """Return F at a level for each sample, from programs whose x' is F.

    A learned variance v shows in the noise that a row adds: of noise 1 with the bounds 0 and 2 it
    is exp((v + 1) / 2).
    """

    def outputs(**row: Any) -> Floats:
        builder = ProgramBuilder(spec, clip=False)
        for level in levels:
            builder.row(level, level, a=0, b=0, **row)
        program = builder.build(exact_noise=False)
        results = []
        for index in range(len(levels)):
            batch = backend.batch(program, 1)
            batch.start(x[index : index + 1], row=index)
            batch.step(np.ones_like(x[:1]))
            results.append(batch.x.copy())
        return np.concatenate(results)

    mean = outputs(g=1)
    if not spec.learned_variance:
        return mean
    return np.concatenate([mean, 2 * np.log(outputs(d=1, logvar=(0, 2))) - 1], axis=1)


def test_score_sde_is_exported_with_the_norms_of_its_sampler(save: Save, tmp_path: Path) -> None:
    plain = Plain(progressive="output_skip", progressive_input="input_skip")  # as for LSUN
    said = {"data.image_size": 8, "model.sigma_max": 50, "model.num_scales": 12, "model.fir": True}
    path, checkpoint = save(plain.file()), tmp_path / "checkpoint"
    spec = import_checkpoint(path, checkpoint, settings=words(said)).spec
    bundle = export(checkpoint, tmp_path / "bundle")
    backend = open_backend(bundle, "onnxruntime-cpu", threads=1)
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    sigma = torch.from_numpy(spec.schedule.sigma[[2, 11]]).float()
    expected = (plain(x, sigma) * sigma[:, None, None, None]).numpy()
    assert near(network_output(backend, spec, x.numpy(), [2, 11]), expected)
    backend.batch(bundle.default_program(), 2)
    require_all_foreseen(bundle.path)
    require_kernels_of_bfloat16(bundle.path)
