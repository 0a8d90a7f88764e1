"""Requests: the arguments of `sample` and `stream` as a value, and steered runs on real bundles."""

import inspect
from collections.abc import Callable
from dataclasses import FrozenInstanceError, fields, replace
from pathlib import Path

import numpy as np
import pytest

from difftool import edits
from difftool.diffusion.builder import ProgramBuilder
from difftool.diffusion.features import Feature
from difftool.diffusion.program import Program
from difftool.diffusion.samplers import annealed_langevin, ddim, ddpm, dpmpp_2m, unipc
from difftool.diffusion.spec import ModelSpec
from difftool.errors import UsageError
from difftool.networks.trained import load_checkpoint
from difftool.runtime import Model, Request, load
from difftool.runtime.backends.reference import Reference
from difftool.runtime.draws import Draws
from difftool.runtime.loop import run
from difftool.verify.eager import Eager
from tests.fixtures import IMAGE_SPEC

KNOWN = np.linspace(-0.9, 0.9, 64, dtype=np.float32).reshape(1, 8, 8)
MASK = np.zeros((1, 8, 8), np.float32)
MASK[:, :4] = 1


@pytest.fixture(scope="module")
def plain(tiny_bundle: Path) -> Model:
    return load(tiny_bundle, threads=1, max_batch=2)


@pytest.fixture(scope="module")
def fused(featured_bundle: Path) -> Model:
    return load(featured_bundle, threads=1, max_batch=2)


@pytest.mark.parametrize("method", [Model.sample, Model.stream])
def test_the_arguments_are_the_fields_of_a_request(method: object) -> None:
    arguments = list(inspect.signature(method).parameters.values())[1:]
    assert arguments == list(inspect.signature(Request).parameters.values())
    assert [each.name for each in arguments] == [field.name for field in fields(Request)]


def test_a_wrong_argument_is_no_argument(plain: Model) -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'sead'"):
        plain.sample(sead=3)


def test_a_request_is_run_as_its_arguments_are(plain: Model) -> None:
    request = Request(n=3, seed=5, first_sample=1, every=7)
    runs = [plain.run(request), plain.stream(n=3, seed=5, first_sample=1, every=7)]
    seen = [[(state.step, state.first, state.x.copy()) for state in run] for run in runs]
    assert [state[:2] for state in seen[0]] == [(s, f) for f in (1, 3) for s in (7, 14, 20)]
    for one, other in zip(*seen, strict=True):
        assert one[:2] == other[:2]
        np.testing.assert_array_equal(one[2], other[2])


def test_a_request_stays_as_it_was_made() -> None:
    data = [[[0.5] * 8] * 8]
    request = Request(n=1, init=data)
    data[0][0][0] = 0.0
    np.testing.assert_array_equal(request.init, np.full((1, 8, 8), 0.5, np.float32))
    with pytest.raises(FrozenInstanceError):
        request.n = 2  # type: ignore[misc]


def adaptive(spec: ModelSpec, *, snr: float = 0.0, batch_snr: float = 0.0) -> Program:
    """Corrections of adaptive size at level 10, and one step to the data."""
    builder = ProgramBuilder(spec, clip=True)
    alpha, sigma = builder.level(10)
    drift = {"a": 1 - sigma**-2, "b": alpha / sigma**2}
    for _ in range(3):
        builder.row(10, 10, **drift, d=2**0.5, snr=snr, batch_snr=batch_snr)
    builder.row(10, None, a=0.0, b=1.0)
    return builder.build(exact_noise=False)


@pytest.mark.parametrize("sampler", [ddpm, ddim, dpmpp_2m, unipc])
def test_known_values_by_the_step_graph_or_by_the_runtime(
    plain: Model, fused: Model, sampler: Callable[..., Program]
) -> None:
    assert plain.backend.features == set()
    assert fused.backend.features == {Feature.KNOWN, Feature.NORMS}
    program = sampler(plain.spec, steps=8)
    edit = edits.inpaint(KNOWN, MASK)
    runs = [model.sample(program, n=3, edit=edit) for model in (plain, fused)]
    np.testing.assert_allclose(runs[0], runs[1], atol=2e-5)
    held = np.broadcast_to(KNOWN * MASK, (3, 1, 8, 8))
    np.testing.assert_allclose(runs[0] * MASK, held, atol=1e-5)
    untouched = fused.sample(program, n=3)
    np.testing.assert_allclose(untouched, plain.sample(program, n=3), atol=2e-5)
    assert np.abs(untouched - runs[1]).max() > 0.1


def test_each_sample_may_have_known_values_of_its_own(plain: Model) -> None:
    known = np.stack([KNOWN, -KNOWN, KNOWN / 2])
    program = ddim(plain.spec, steps=4, eta=1.0)
    together = plain.sample(program, n=3, edit=edits.inpaint(known, MASK))
    for index, own in enumerate(known):
        edit = edits.inpaint(own, MASK)
        alone = plain.sample(program, n=1, first_sample=index, edit=edit, deterministic=True)
        np.testing.assert_allclose(alone[0], together[index], atol=1e-5)
    with pytest.raises(UsageError, match="values for 3 samples, and more are drawn"):
        plain.sample(program, n=4, edit=edits.inpaint(known, MASK))


def test_a_user_may_edit_the_denoised_estimate_in_any_way(plain: Model) -> None:
    def upright(denoised: np.ndarray, positions: np.ndarray) -> np.ndarray:
        assert denoised.shape == (len(positions), 1, 8, 8)
        return (denoised + denoised[..., ::-1]) / 2

    samples = plain.sample(ddim(plain.spec, steps=5), n=3, edit=upright)
    np.testing.assert_allclose(samples, samples[..., ::-1], atol=1e-5)


@pytest.mark.parametrize("weights", [{"snr": 0.16}, {"batch_snr": 0.16}])
def test_adaptive_steps(fused: Model, tiny_checkpoint: Path, weights: dict[str, float]) -> None:
    """PyTorch's batch is the reference."""
    loaded = load_checkpoint(tiny_checkpoint, ema=True)
    program = adaptive(loaded.spec, **weights)
    reference = Eager(loaded.network, loaded.spec, (Feature.NORMS,)).batch(program, 2)
    for _ in run(reference, program, Draws(3, np.arange(2), loaded.spec.shape)):
        pass
    np.testing.assert_allclose(fused.sample(program, n=2, seed=3), reference.x, atol=2e-5)
    fixed = adaptive(loaded.spec)
    assert np.abs(fused.sample(fixed, n=2, seed=3) - reference.x).max() > 1e-3


def test_own_norms_leave_a_sample_alone_and_the_batch_s_do_not(fused: Model) -> None:
    own, shared = adaptive(fused.spec, snr=0.16), adaptive(fused.spec, batch_snr=0.16)
    alone, together = (fused.sample(own, n=n)[0] for n in (1, 2))
    np.testing.assert_allclose(alone, together, atol=1e-5)
    alone, together = (fused.sample(shared, n=n)[0] for n in (1, 2))
    assert np.abs(alone - together).max() > 1e-3


def test_what_a_step_graph_lacks_is_refused_with_the_way_to_get_it(plain: Model) -> None:
    with pytest.raises(UsageError, match="no norms") as refusal:
        plain.sample(adaptive(plain.spec, snr=0.16), n=1)
    assert "`features=norms`" in refusal.value.hint


def test_edits_refuse_programs_that_use_more_than_the_estimate(plain: Model) -> None:
    edit = edits.inpaint(KNOWN, MASK)
    with pytest.raises(UsageError, match="raw network"):
        plain.sample(ddim(plain.spec, steps=3, raw_epsilon=True), n=1, edit=edit)
    with pytest.raises(UsageError, match="adapts"):
        plain.sample(adaptive(plain.spec, snr=0.16), n=1, edit=edit)


def test_a_start_from_data_is_the_data_under_the_first_rows_noise(plain: Model) -> None:
    program = ddim(plain.spec.up_to(0.5), steps=4)
    assert program.start.kind == "data"
    with pytest.raises(UsageError, match="starts from data"):
        plain.sample(program, n=1)
    first = next(plain.stream(program, n=1, init=KNOWN))
    alpha, sigma = plain.spec.schedule.alpha[9], plain.spec.schedule.sigma[9]
    noise = Draws(0, np.arange(1), (1, 8, 8)).normal(0)
    batch = plain.backend.batch(program, 1)
    batch.start((alpha * KNOWN + sigma * noise).astype(np.float32))
    batch.step(None)
    np.testing.assert_allclose(first.x, batch.x, atol=1e-6)


def test_little_strength_keeps_the_data(plain: Model) -> None:
    def change(strength: float) -> float:
        program = ddpm(plain.spec.up_to(strength))
        return float(np.abs(plain.sample(program, n=2, init=KNOWN) - KNOWN).mean())

    assert change(0.05) < 0.1 < change(1.0)


def test_the_ends_of_an_interpolation_are_the_two_samples(plain: Model) -> None:
    program = ddim(plain.spec, steps=5, eta=0.5)
    samples = plain.sample(program, n=6, seed=2)
    way = plain.sample(program, n=5, seed=2, between=(1, 5))
    np.testing.assert_allclose(way[0], samples[1], atol=1e-5)
    np.testing.assert_allclose(way[-1], samples[5], atol=1e-5)
    gaps = np.abs(np.diff(way, axis=0)).mean(axis=(1, 2, 3))
    assert (gaps > 0).all()
    start = annealed_langevin(plain.spec, steps=20)
    with pytest.raises(UsageError, match="uniform"):
        plain.sample(start, n=2, between=(0, 1))


def test_noise_between_two_samples_is_normal_and_has_their_angle() -> None:
    angles = np.array([0.0, np.pi / 6, np.pi / 2])
    between = Draws(1, np.tile([4, 9], (3, 1)), (4000,), angles).normal(3)
    first, second = Draws(1, np.array([4, 9]), (4000,)).normal(3)
    np.testing.assert_allclose(between[0], first, atol=1e-6)
    np.testing.assert_allclose(between[2], second, atol=1e-6)
    np.testing.assert_allclose(between[1], np.sqrt(3) / 2 * first + second / 2, atol=1e-6)
    assert between[1].std() == pytest.approx(1, abs=0.05)


def test_colourization_keeps_the_grey_and_finds_colours() -> None:
    grey = np.full((1, 2, 2), 0.25, np.float32)
    denoised = np.random.default_rng(0).normal(size=(5, 3, 2, 2)).astype(np.float32)
    edited = edits.colorize(grey)(denoised, np.arange(5))
    means = [image.mean(axis=1, keepdims=True) for image in (edited, denoised)]
    np.testing.assert_allclose(means[0], np.broadcast_to(grey, (5, 1, 2, 2)), atol=1e-6)
    np.testing.assert_allclose(edited - means[0], denoised - means[1], atol=1e-6)


def test_masks_and_values_that_do_not_fit_are_refused(plain: Model) -> None:
    with pytest.raises(UsageError, match="mask"):
        edits.inpaint(KNOWN, 255 * MASK)
    with pytest.raises(UsageError, match=r"values of shape \(1, 4, 8\)"):
        plain.sample(ddim(plain.spec, steps=2), n=1, edit=edits.inpaint(KNOWN[:, :4], MASK))


@pytest.mark.parametrize("sampler", [ddpm, dpmpp_2m])
def test_a_coloured_run_ends_with_the_grey_it_was_given(sampler: Callable[..., Program]) -> None:
    spec = replace(IMAGE_SPEC, shape=(3, 2, 2), data_range=None)
    grey = np.array([[[0.1, -0.2], [0.3, 0.4]]], np.float32)
    program = sampler(spec, steps=10)
    batch = Reference(lambda x, cond: np.tanh(x), spec.shape).batch(program, 2)
    edit = edits.colorize(grey)
    draws = Draws(0, np.arange(2), spec.shape)
    for _ in run(batch, program, draws, edit=lambda d: edit(d, np.arange(2))):
        pass
    np.testing.assert_allclose(batch.x.mean(1, keepdims=True), np.stack([grey] * 2), atol=1e-6)
    assert batch.x.std(axis=1).min() > 1e-3
