"""Every sampler's table, run by the reference backend, against the plain loop of its paper."""

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from difftool.diffusion.calls import SamplerCall
from difftool.diffusion.columns import Column
from difftool.diffusion.invariant import validate
from difftool.diffusion.program import Program
from difftool.diffusion.samplers import (
    SAMPLERS,
    annealed_langevin,
    compile_program,
    ddim,
    ddpm,
    heun,
    langevin,
    plms,
)
from difftool.diffusion.spec import ModelSpec
from difftool.errors import CheckFailed, UsageError
from tests.oracles import plain_loops
from tests.oracles.analytic import COSINE, EDM, MODELS, START, VE, VP, gap, same_draws, scaled
from tests.oracles.plain_loops import Array


@pytest.mark.parametrize("steps", [1, 13, 50, 1000])
@pytest.mark.parametrize("variance", ["small", "large"])
def test_ddpm_is_the_papers_loop(steps: int, variance: str) -> None:
    program = ddpm(VP, steps=steps, variance=variance)
    large = variance == "large"
    assert loop_gap(VP, program, plain_loops.ancestral, alpha_bars(steps), large=large) < 1e-10


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("raw_epsilon", [False, True])
def test_ddim_is_the_papers_loop(eta: float, raw_epsilon: bool) -> None:
    options = {"eta": eta, "raw_epsilon": raw_epsilon}
    program = ddim(VP, steps=50, **options)
    assert loop_gap(VP, program, plain_loops.implicit, alpha_bars(50), **options) < 1e-10


def alpha_bars(steps: int) -> list[float]:
    levels = np.linspace(0, 999, steps).round().astype(int)[::-1] if steps > 1 else [999]
    return [float(VP.schedule.alpha_bar[t]) for t in levels]


def loop_gap(
    spec: ModelSpec,
    program: Program,
    loop: Callable[..., Array],
    levels: list[float],
    denoise: plain_loops.Denoiser = plain_loops.mixture_denoiser,
    **options: Any,
) -> float:
    return gap(spec, program, loop, levels, denoise, x=START, draw=same_draws(), **options)


@pytest.mark.parametrize("convention", ["image", "paper"])
@pytest.mark.parametrize("denoise", [False, True])
def test_annealed_langevin_is_the_papers_loop(convention: str, denoise: bool) -> None:
    said = {"convention": convention, "denoise": denoise}
    program = annealed_langevin(VE, steps=200, step_size=2e-5, **said)
    options = {"step_size": 2e-5, "each": 20, "image": convention == "image", "last": denoise}
    sigmas = VE.schedule.sigma[::-1].tolist()
    assert program.nfe == 200 + denoise
    assert loop_gap(VE, program, plain_loops.annealed, sigmas, **options) < 1e-10


def test_langevin_is_one_level_of_annealed() -> None:
    program = langevin(VE, steps=30, step_size=1e-3, level=5)
    options = {"step_size": 1e-3, "each": 30, "image": False, "last": False}
    sigma = float(VE.schedule.sigma[5])
    assert loop_gap(VE, program, plain_loops.annealed, [sigma], **options) < 1e-10


def test_a_vp_models_langevin_state_is_scaled_to_unit_signal() -> None:
    """The network of a VP model runs annealed Langevin dynamics as if it were an NCSN."""
    program = annealed_langevin(VP, steps=1000, step_size=1e-6)
    sigmas, denoise = scaled(VP, 1000, "linspace", clip=False)
    options = {"step_size": 1e-6, "each": 1, "image": True, "last": True}
    assert loop_gap(VP, program, plain_loops.annealed, sigmas, denoise, **options) < 1e-8
    assert validate(program).signal_error < 1e-12


@pytest.mark.parametrize(
    "program",
    [
        ddpm(VP),
        ddpm(VP, steps=37),
        ddim(VP),
        ddim(VP, eta=0.7, raw_epsilon=True),
        heun(EDM, churn=40, churn_min=0.05, churn_max=50),  # without inflation
        # From sigma / alpha of 2e4 at once: Heun's weights on D are millions, of opposite sign.
        *(sampler(COSINE, steps=n) for sampler in (heun, plms) for n in (3, 4, 5, 9)),
    ],
    ids=lambda program: program.name,
)
def test_a_perfect_denoiser_meets_every_level(program: Program) -> None:
    result = validate(program)
    assert program.exact_noise
    assert result.signal_error < 1e-12
    assert result.noise_error < 1e-12


def test_large_variance_and_langevin_keep_the_signal_and_report_their_noise() -> None:
    for program in (ddpm(VP, variance="large", steps=50), annealed_langevin(VE)):
        assert validate(program).signal_error < 1e-12
        assert validate(program).noise_error > 1e-3


@pytest.mark.parametrize("column", [Column.A, Column.B, Column.D])
def test_the_invariant_catches_a_wrong_coefficient(column: Column) -> None:
    program = ddpm(VP, steps=20)
    program.table[10, column] *= 1 + 1e-9
    with pytest.raises(CheckFailed, match=r"row 1\d misses"):
        validate(program)


def test_learned_variance_bounds_are_the_two_fixed_ones() -> None:
    spec = ModelSpec.from_dict({**VP.to_dict(), "learned_variance": True})
    learned = ddpm(spec, steps=20, variance="learned").table
    small, large = (ddpm(VP, steps=20, variance=kind).table for kind in ("small", "large"))
    assert np.exp(learned[:-1, Column.LOGVAR_MIN] / 2) == pytest.approx(small[:-1, Column.D])
    assert np.exp(learned[:-1, Column.LOGVAR_MAX] / 2) == pytest.approx(large[:-1, Column.D])
    assert learned[:, Column.D].tolist() == [1.0] * 19 + [0.0]


NONE_BETWEEN = "knows its 10 noise levels and none between"


@pytest.mark.parametrize(
    ("model", "sampler", "arguments", "message"),
    [
        ("vp", "milstein", {}, "unknown sampler 'milstein'"),
        ("vp", "ddpm", {"eta": 1.0}, "takes no 'eta'"),
        ("vp", "ddpm", {"steps": 0}, "0 steps on a schedule of 1000"),
        ("vp", "ddpm", {"steps": 1001}, "1001 steps on a schedule of 1000"),
        ("vp", "ddpm", {"steps": 2.5}, "steps is 2.5"),
        ("vp", "ddpm", {"variance": "huge"}, "unknown variance 'huge'"),
        ("vp", "ddpm", {"variance": "learned"}, "no learned variance"),
        ("vp", "ddim", {"eta": 1.5}, "eta 1.5"),
        ("vp", "langevin", {"step_size": 0.1, "level": 1000}, "level 1000"),
        ("vp", "langevin", {"step_size": -0.1}, "not positive"),
        ("vp", "langevin", {"step_size": 10**400}, "overflows with step_size 1000"),
        ("vp", "heun", {"churn": 10**400}, "overflows with churn 1000"),
        ("vp", "annealed_langevin", {"step_size": 1e300}, "a number that float32 cannot"),
        ("vp", "annealed_langevin", {"steps": 1500}, "do not divide among 1000"),
        ("vp", "annealed_langevin", {"convention": "tutorial"}, "unknown convention"),
        ("vp", "langevin", {"step_size": 0.1, "start": "uniform(8, -8)"}, "unknown start"),
        ("vp", "langevin", {"step_size": 0.1, "start": "normal(0)"}, "unknown start"),
        ("ncsn", "unipc", {"steps": 8, "order": 4}, "UniPC of order 4"),
        ("ncsn", "plms", {"steps": 2}, "PLMS with 2 steps"),
        ("ncsn", "plms", {"steps": 8, "spacing": "half_log_snr"}, "PLMS needs even timesteps"),
        ("ncsn", "plms", {"steps": 12}, "12 steps on a schedule of 10 levels .use 3 to 11 steps"),
        ("ncsn", "heun", {"steps": 0}, "0 steps on a schedule"),
        ("ncsn", "heun", {"steps": 20}, "20 steps on a schedule of 10 levels .use 1 to 19 steps"),
        ("ncsn", "heun", {"steps": 8, "churn": -1.0}, "churn_min is negative"),
        ("ncsn", "euler", {"steps": 8, "spacing": "cubic"}, "unknown spacing 'cubic'"),
        ("ncsn", "euler", {"steps": 8, "spacing": 3}, "spacing is 3"),
        ("ncsn", "dpmpp_2m", {"steps": 8, "spacing": "karras"}, NONE_BETWEEN),
        ("ncsn", "heun", {"steps": 9, "churn": 4.0}, NONE_BETWEEN),
        ("ncsn", "dpmpp_2m", {"steps": 11}, "11 steps on a schedule of 10 levels"),
        ("ncsn", "consistent_annealed", {"step_size": 1.0}, "between 4.01e-05 and 0.00016"),
        ("ncsn", "predictor_corrector", {"steps": 15}, "15 steps do not divide by 2"),
        ("ncsn", "predictor_corrector", {"steps": 22}, "use 2 to 20 steps"),
        ("ncsn", "predictor_corrector", {"snr": 0.0}, "positive snr"),
        ("ncsn", "predictor_corrector", {"predictor": "euler"}, "unknown predictor 'euler'"),
        ("ncsn", "euler_ancestral", {"eta": 1.5}, "eta 1.5"),
        ("ncsn", "dpmpp_2m_sde", {"eta": -0.5}, "eta -0.5"),
        ("ncsn", "reverse_diffusion", {"steps": 11}, "11 steps on a schedule of 10"),
        ("ncsn", "repaint", {"resamples": 0}, "0 resamples"),
        ("ncsn", "repaint", {"jump": 0}, "jump 0"),
        ("ncsn", "repaint", {"steps": 0}, "0 steps on a schedule of 10 levels"),
        ("ncsn", "repaint", {"steps": -3}, "use 1 to 91 steps"),
        ("ncsn", "repaint", {"steps": 92}, "use 1 to 91 steps"),
        ("ncsn", "predictor_corrector", {"corrector": "norms"}, "of: fixed, adaptive, reference"),
    ],
)
def test_what_has_no_meaning_is_refused(
    model: str, sampler: str, arguments: dict[str, object], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        compile_program(MODELS[model], SamplerCall(sampler, arguments))


@pytest.mark.parametrize("spec", [VP, VE], ids=["vp", "ve"])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_default_program_compiles_again(sampler: str, spec: ModelSpec) -> None:
    program = compile_program(spec, SamplerCall(sampler))
    assert validate(program).signal_error < 1e-12
    assert next(iter(program.call.arguments)) == "steps"
    again = compile_program(spec, program.call)
    assert np.array_equal(again.table, program.table)
    assert again.name == program.name


def test_an_integer_will_do_for_a_number() -> None:
    program = compile_program(VP, SamplerCall("heun", {"churn": 4, "churn_max": 50}))
    assert program.name.startswith("heun(")
    with pytest.raises(UsageError, match="churn_max is True"):
        compile_program(VP, SamplerCall("heun", {"churn_max": True}))


def test_where_langevin_starts_can_be_chosen() -> None:
    default = annealed_langevin(VE)
    assert str(default.start) == "uniform(0.0, 1.0)"
    chosen = annealed_langevin(VE, start="uniform(-8, 8)")
    assert (chosen.start.kind, chosen.start.low, chosen.start.high) == ("uniform", -8, 8)
    again = annealed_langevin(VE, **chosen.call.arguments)
    assert again.start == chosen.start


@pytest.mark.parametrize("spec", MODELS.values(), ids=MODELS)
def test_langevins_step_is_by_default_the_papers_share_of_the_noise(spec: ModelSpec) -> None:
    """2e-5 at a sigma of 0.01; so the dynamics are stable on every model."""
    program = annealed_langevin(spec, denoise=False)
    assert program.table[:, Column.B] == pytest.approx(np.full(len(program), 0.2))
    assert abs(program.nfe - 1000) <= len(spec.schedule) / 2
    assert langevin(spec, level=3).table[:, Column.B] == pytest.approx(np.full(1000, 0.1))
    assert annealed_langevin(VE).call.arguments["step_size"] == pytest.approx(2e-5, rel=1e-12)


def test_the_proof_carries_one_coefficient_for_all_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Langevin's noise in closed form, without a number for each of its rows."""
    program = langevin(VP, steps=400, level=100)
    sizes, norm = [], np.linalg.norm
    monkeypatch.setattr(np.linalg, "norm", lambda x: sizes.append(np.size(x)) or norm(x))
    found = validate(program)
    kept, fresh = program.table[0, [Column.A, Column.D]]
    (_, first), (_, sigma) = program.targets[:2]
    decay = kept ** (2 * np.arange(1, 401))
    noise = np.sqrt(decay * first**2 + fresh**2 * (1 - decay) / (1 - kept**2))
    assert found.noise_error == pytest.approx(np.abs(noise - sigma).max() / max(1, sigma), rel=1e-9)
    assert max(sizes) <= 2


@pytest.mark.parametrize("spec", [VP, VE], ids=["vp", "ve"])
def test_without_eta_no_sampler_that_takes_it_adds_noise(spec: ModelSpec) -> None:
    taking = [name for name in SAMPLERS if "eta" in inspect.signature(SAMPLERS[name]).parameters]
    assert set(taking) == {"ddim", "euler_ancestral", "dpmpp_2m_sde"}
    for name in taking:
        assert not SAMPLERS[name](spec, eta=0.0).table[:, Column.D].any()
        assert SAMPLERS[name](spec, eta=0.5).table[:-1, Column.D].all()
