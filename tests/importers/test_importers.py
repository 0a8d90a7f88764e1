"""The golden files, imported and exported, compute what their authors' code computed."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from difftool.bundle import read_bundle
from difftool.diffusion.builder import ProgramBuilder
from difftool.diffusion.program import Program
from difftool.diffusion.samplers import annealed_langevin, compile_program
from difftool.diffusion.spec import ModelSpec
from difftool.export import export
from difftool.importers import find, write
from difftool.networks.trained import Checkpoint, load_checkpoint
from difftool.runtime.opening import open_backend
from difftool.runtime.protocols import Backend, Floats
from difftool.verify.eager import Eager

NAMES = (
    "ncsn_v1_mnist28",
    "ncsn_v2_cifar32",
    "improved_diffusion_learned_sigma",
    "ddpm_pesser16",
)
RUNS = ("ncsn_v1_mnist28", "improved_diffusion_learned_sigma")  # of which one is recorded
ONE, RUN = 2e-4, 2e-3  # of the largest output: one evaluation, a whole run

Arrays = dict[str, np.ndarray]


@pytest.fixture(scope="session", params=NAMES)
def checkpoint(
    request: pytest.FixtureRequest, shared: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A golden folder as a checkpoint of ours."""
    out = tmp_path_factory.mktemp("golden") / request.param
    found = find(shared / "golden" / request.param)
    write(found, found.read(), out)
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
    spec = loaded.spec
    if "labels" in recorded:
        levels = len(spec.schedule) - 1 - recorded["labels"]
        sigma = recorded["sigmas"][recorded["labels"]].reshape(-1, 1, 1, 1)
        scale = sigma if spec.parameterization == "scaled_score" else 1.0
        expected = recorded["score"] * scale
    else:
        levels = recorded["t_original" if "t_original" in recorded else "t"]
        expected = recorded["output" if "output" in recorded else "eps"]
    actual = network_output(backend, spec, recorded["x"], levels.tolist())
    assert actual.shape == expected.shape
    assert np.abs(actual - expected).max() <= ONE * np.abs(expected).max()


def test_the_levels_are_the_recorded_ones(loaded: Checkpoint, recorded: Arrays) -> None:
    if "sigmas" in recorded:
        sigmas = loaded.spec.schedule.sigma[::-1]
        assert np.allclose(sigmas, recorded["sigmas"], rtol=1e-5, atol=0)
    elif "timestep_map" in recorded:
        visited = default_program(loaded).conds / loaded.spec.conds(1)
        assert np.array_equal(visited.round(), recorded["timestep_map"])
    else:
        assert str(loaded.spec.schedule) == "linear(steps=1000, beta_start=0.0001, beta_end=0.02)"


@pytest.mark.parametrize("checkpoint", RUNS, indirect=True)
def test_a_whole_run(backend: Backend, loaded: Checkpoint, recorded: Arrays) -> None:
    if "loop_noise" in recorded:  # learned variance; the default program is that of the flags
        program, prefix = default_program(loaded), "loop"
    else:
        program, prefix = annealed(loaded.spec, recorded), "ald"
    start, noise, expected = (recorded[f"{prefix}_{part}"] for part in ("init", "noise", "final"))
    batch = backend.batch(program, len(start))
    batch.start(start)
    assert len(program) == len(noise)
    for drawn in noise:
        batch.step(drawn)
    assert np.abs(batch.x - expected).max() <= RUN * np.abs(expected).max()


def default_program(loaded: Checkpoint) -> Program:
    return compile_program(loaded.spec, loaded.sampler)


def annealed(spec: ModelSpec, recorded: Arrays) -> Program:
    """The recorded Langevin run."""
    return annealed_langevin(
        spec,
        steps=int(recorded["ald_steps_each"]) * len(spec.schedule),
        step_size=float(recorded["ald_step_lr"]),
        denoise=False,
    )


def network_output(backend: Backend, spec: ModelSpec, x: Floats, levels: list[int]) -> Floats:
    """The raw network at a level for each sample, out of programs whose x' is F.

    The half of a learned variance shows in how much noise a row adds: with bounds 0 and 2 and noise
    1 it is exp((v + 1) / 2).
    """
    mean = _rows(backend, spec, x, levels, lambda b, level: b.row(level, level, a=0, b=0, g=1))
    if not spec.learned_variance:
        return mean
    spread = _rows(
        backend,
        spec,
        x,
        levels,
        lambda b, level: b.row(level, level, a=0, b=0, d=1, logvar=(0, 2)),
    )
    return np.concatenate([mean, 2 * np.log(spread) - 1], axis=1)


def _rows(
    backend: Backend,
    spec: ModelSpec,
    x: Floats,
    levels: list[int],
    add: Callable[[ProgramBuilder, int], None],
) -> Floats:
    builder = ProgramBuilder(spec, clip=False)
    for level in levels:
        add(builder, level)
    program = builder.build(exact_noise=False)
    results = []
    for row in range(len(levels)):
        batch = backend.batch(program, 1)
        batch.start(x[row : row + 1], row=row)
        batch.step(np.ones_like(x[:1]))
        results.append(batch.x.copy())
    return np.concatenate(results)
