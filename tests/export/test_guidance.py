"""Guided steps as they are exported, against loops of guidance written out in PyTorch."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from difftool.bundle import read_bundle
from difftool.diffusion import noise
from difftool.diffusion.columns import Column
from difftool.diffusion.features import Feature
from difftool.diffusion.labels import Labels
from difftool.diffusion.program import Program
from difftool.diffusion.samplers import ddim, ddpm
from difftool.errors import UsageError
from difftool.networks.trained import Checkpoint, load_checkpoint
from difftool.runtime import load
from difftool.runtime.backends.reference import Reference
from difftool.runtime.comparison import compare
from difftool.runtime.draws import Draws
from difftool.runtime.loop import run
from difftool.verify import verify
from difftool.verify.eager import Eager
from tests.fixtures import CLASSES_SPEC
from tests.oracles.toy import Toy, wide_in_numpy

SEED = 4
LABELS = [2, 0, 3, 1, 2, 0]  # 3 is the null label
TOLERANCE = 2e-5  # float32, over a run of 20 steps; samples are in -1 .. 1


@pytest.fixture(scope="module")
def loaded(classes_checkpoint: Path) -> Checkpoint:
    return load_checkpoint(classes_checkpoint)


def drawn(draw: int, shape: tuple[int, ...]) -> Tensor:
    return torch.from_numpy(noise.normal(SEED, draw, np.arange(len(LABELS)), shape))


def guided(network: nn.Module, x: Tensor, cond: float, scale: float) -> Tensor:
    """F_u + w (F_c - F_u), in two calls."""
    conds, labels = torch.full((len(x),), cond), torch.tensor(LABELS)
    conditional = network(x, network.condition(conds, labels))
    unconditional = network(x, network.condition(conds, torch.full_like(labels, 3)))
    return unconditional + scale * (conditional - unconditional)


@torch.no_grad()
def ancestral(loaded: Checkpoint, scale: float) -> Tensor:
    """DDPM with guidance: Ho et al. 2020, algorithm 2, with x0 clipped."""
    alpha_bar = loaded.spec.schedule.alpha_bar
    x = drawn(0, loaded.spec.shape)
    for row, t in enumerate(reversed(range(20))):
        current, previous = float(alpha_bar[t]), float(alpha_bar[t - 1]) if t else 1.0
        epsilon = guided(loaded.network, x, float(t), scale)
        x0 = ((x - (1 - current) ** 0.5 * epsilon) / current**0.5).clamp(-1, 1)
        beta = 1 - current / previous
        x = (
            previous**0.5 * beta / (1 - current) * x0
            + (1 - beta) ** 0.5 * (1 - previous) / (1 - current) * x
            + (beta * (1 - previous) / (1 - current)) ** 0.5 * drawn(row + 1, loaded.spec.shape)
        )
    return x


@torch.no_grad()
def implicit(loaded: Checkpoint, scale: float) -> Tensor:
    """DDIM with guidance: the step is that of the diffusers library."""
    scheduler = pytest.importorskip("diffusers").DDIMScheduler(
        num_train_timesteps=20, beta_start=1e-4, beta_end=0.4, timestep_spacing="linspace"
    )
    scheduler.set_timesteps(20)
    x = drawn(0, loaded.spec.shape)
    for t in scheduler.timesteps:
        epsilon = guided(loaded.network, x, float(t), scale)
        x = scheduler.step(epsilon, t, x).prev_sample
    return x


def eager(loaded: Checkpoint, program: Program, scale: float) -> np.ndarray:
    backend = Eager(loaded.network, loaded.spec, (Feature.GUIDANCE,))
    batch = backend.batch(program, len(LABELS), Labels(np.array(LABELS), scale))
    for _ in run(batch, program, Draws(SEED, np.arange(len(LABELS)), loaded.spec.shape)):
        pass
    return batch.x


@pytest.mark.parametrize("scale", [0.0, 1.0, 3.0])
@pytest.mark.parametrize(
    ("sampler", "loop"), [(ddpm, ancestral), (partial(ddim, raw_epsilon=True), implicit)]
)
def test_the_exported_graph_is_the_loop_over_two_calls(
    loaded: Checkpoint,
    classes_bundle: Path,
    sampler: Callable[..., Program],
    loop: Callable[[Checkpoint, float], Tensor],
    scale: float,
) -> None:
    program = sampler(loaded.spec, steps=20)
    expected = loop(loaded, scale).numpy()
    assert expected.std() > 0.01
    assert np.abs(eager(loaded, program, scale) - expected).max() < TOLERANCE
    model = load(classes_bundle, threads=1)
    found = model.sample(program, n=6, seed=SEED, labels=LABELS, guidance_scale=scale)
    assert np.abs(found - expected).max() < TOLERANCE


def test_labels_and_guidance_matter(loaded: Checkpoint) -> None:
    """Or else the comparisons above would hold for a network that ignores them."""
    one, three = ancestral(loaded, 1.0), ancestral(loaded, 3.0)
    assert (one - three).abs().amax((1, 2, 3)).gt(0.05).tolist() == [label != 3 for label in LABELS]
    x, cond = drawn(0, loaded.spec.shape)[:1], torch.tensor([5.0])
    network, labels = loaded.network, torch.arange(4).split(1)
    outputs = [network(x, network.condition(cond, label)) for label in labels]
    assert all((a - b).abs().max() > 0.01 for i, a in enumerate(outputs) for b in outputs[:i])


def test_the_conditioner_takes_labels_and_the_step_knows_none(classes_bundle: Path) -> None:
    conditioner = onnx.load(classes_bundle / "conditioner.onnx")
    assert [value.name for value in conditioner.graph.input] == ["cond", "label"]
    step = onnx.load(classes_bundle / "step.onnx")
    names = ["x", "history", "row", "noise", "table", "cond_table", "guided"]
    assert [value.name for value in step.graph.input] == names
    assert step.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert read_bundle(classes_bundle).features == {Feature.GUIDANCE}


@pytest.mark.parametrize("fed", [None, 1, 0])
def test_without_guidance_the_network_runs_once(classes_bundle: Path, fed: int | None) -> None:
    """The row of the null label is not a number, and reaches the sample only if it is run."""
    session = onnxruntime.InferenceSession(classes_bundle / "step.onnx")
    width = next(port.shape[1] for port in session.get_inputs() if port.name == "cond_table")
    table = ddim(CLASSES_SPEC, steps=4).table.astype(np.float32)
    table[:, [Column.COND, Column.NULL_COND]] = 0, 1
    x = noise.normal(0, 0, np.arange(2), CLASSES_SPEC.shape)
    inputs = {
        "x": x,
        "history": x[None],
        "row": np.zeros(2, np.int64),
        "noise": x,
        "table": table,
        "cond_table": np.stack([np.ones(width, np.float32), np.full(width, np.nan, np.float32)]),
        **({} if fed is None else {"guided": np.array([fed])}),
    }
    x_next, *_ = session.run(None, inputs)
    assert x_next.shape == x.shape
    assert np.isfinite(x_next).all() == (fed == 0)


def test_verify_runs_labels_and_guidance(classes_bundle: Path, classes_checkpoint: Path) -> None:
    assert verify(classes_bundle, classes_checkpoint, n=3).passed
    for wrong, row in ((1, "a label's row"), (3, "the null label's row")):
        loaded, other = (load_checkpoint(classes_checkpoint) for _ in range(2))
        other.network.label_embedding.weight[wrong] += 0.5
        backends = [Eager(side.network, side.spec, (Feature.GUIDANCE,)) for side in (loaded, other)]
        assert not compare(*backends, ddpm(loaded.spec), loaded.spec, n=2).passed, row


def test_learned_variances_are_the_labels_own() -> None:
    """As in GLIDE and DiT, guidance moves the estimate and not the variance."""
    spec = replace(CLASSES_SPEC, shape=(3,), classes=2, learned_variance=True)
    program, labels = ddpm(spec, variance="learned"), np.array([0, 1, 2, 1])
    rng = np.random.default_rng(0)
    start, fresh = rng.normal(size=(4, 3)), rng.normal(size=(20, 4, 3))
    alpha_bar = spec.schedule.alpha_bar
    x = start
    for t, z in zip(reversed(range(20)), fresh, strict=True):
        current, previous = alpha_bar[t], alpha_bar[t - 1] if t else 1.0
        cond = np.full(4, float(t))
        own, v = np.split(wide_in_numpy(x, cond, labels), 2, axis=1)
        without, _ = np.split(wide_in_numpy(x, cond, np.full(4, 2)), 2, axis=1)
        epsilon = without + 4 * (own - without)
        x0 = np.clip((x - np.sqrt(1 - current) * epsilon) / np.sqrt(current), -1, 1)
        beta = 1 - current / previous
        x = (
            np.sqrt(previous) * beta / (1 - current) * x0
            + np.sqrt(1 - beta) * (1 - previous) / (1 - current) * x
        )
        if t:
            small, fraction = beta * (1 - previous) / (1 - current), (v + 1) / 2
            x = x + beta ** (fraction / 2) * small ** ((1 - fraction) / 2) * z
    reference = Reference(wide_in_numpy, spec.shape, learned_variance=True, null_label=2)
    found = {
        backend.name: backend.batch(program, 4, Labels(labels, 4.0))
        for backend in (reference, Eager(Toy(wide=True), spec, (Feature.GUIDANCE,)))
    }
    for batch in found.values():
        batch.start(start)
        for z in fresh:
            batch.step(z.astype(np.float32))
    assert np.abs(found["reference"].x - x).max() < 1e-6  # z is rounded
    assert np.abs(found["torch"].x - x).max() < TOLERANCE


def test_a_checkpoint_with_labels_only_runs_by_label(loaded: Checkpoint) -> None:
    spec = replace(loaded.spec, null_label=False)
    program = ddim(spec, steps=5)
    backend = Eager(loaded.network, spec)
    batch = backend.batch(program, 2, Labels(np.array([0, 2])))
    assert batch.x.shape == (2, 1, 8, 8)
    with pytest.raises(UsageError, match="with labels only"):
        backend.batch(program, 2, Labels(np.array([0, 3])))
