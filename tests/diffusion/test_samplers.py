"""Every sampler's table, run by the reference backend, against the plain loop of its paper."""

import inspect

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
    langevin,
)
from difftool.diffusion.spec import ModelSpec
from difftool.errors import CheckFailed, UsageError
from tests.oracles import plain_loops
from tests.oracles.analytic import EDM, NCSNV2, START, VE, VP, Array, draws, run_table


@pytest.mark.parametrize("steps", [1, 13, 50, 1000])
@pytest.mark.parametrize("variance", ["small", "large"])
def test_ddpm_is_the_papers_loop(steps: int, variance: str) -> None:
    program = ddpm(VP, steps=steps, variance=variance)
    levels = np.linspace(0, 999, steps).round().astype(int)[::-1] if steps > 1 else [999]
    expected = plain_loops.ancestral(
        START,
        [float(VP.schedule.alpha_bar[t]) for t in levels],
        plain_loops.mixture_denoiser,
        draws().__next__,
        large=variance == "large",
    )
    assert np.abs(run_table(VP, program, START) - expected).max() < 1e-10


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("raw_epsilon", [False, True])
def test_ddim_is_the_papers_loop(eta: float, raw_epsilon: bool) -> None:
    program = ddim(VP, steps=50, eta=eta, raw_epsilon=raw_epsilon)
    levels = np.linspace(0, 999, 50).round().astype(int)[::-1]
    expected = plain_loops.implicit(
        START,
        [float(VP.schedule.alpha_bar[t]) for t in levels],
        plain_loops.mixture_denoiser,
        draws().__next__,
        eta=eta,
        raw_epsilon=raw_epsilon,
    )
    assert np.abs(run_table(VP, program, START) - expected).max() < 1e-10


@pytest.mark.parametrize("convention", ["image", "paper"])
@pytest.mark.parametrize("denoise", [False, True])
def test_annealed_langevin_is_the_papers_loop(convention: str, denoise: bool) -> None:
    program = annealed_langevin(
        VE, steps=200, step_size=2e-5, convention=convention, denoise=denoise
    )
    expected = plain_loops.annealed(
        START,
        [float(sigma) for sigma in VE.schedule.sigma[::-1]],
        plain_loops.mixture_denoiser,
        draws().__next__,
        step_size=2e-5,
        each=20,
        image=convention == "image",
        last=denoise,
    )
    assert program.nfe == 200 + denoise
    assert np.abs(run_table(VE, program, START) - expected).max() < 1e-10


def test_langevin_is_one_level_of_annealed() -> None:
    program = langevin(VE, steps=30, step_size=1e-3, level=5)
    sigma = float(VE.schedule.sigma[5])
    expected = plain_loops.annealed(
        START,
        [sigma],
        plain_loops.mixture_denoiser,
        draws().__next__,
        step_size=1e-3,
        each=30,
        image=False,
        last=False,
    )
    assert np.abs(run_table(VE, program, START) - expected).max() < 1e-10


def test_a_vp_models_langevin_state_is_scaled_to_unit_signal() -> None:
    """The noise-prediction network runs annealed Langevin dynamics as if it were an NCSN."""
    program = annealed_langevin(VP, steps=1000, step_size=1e-6)
    ratios = (VP.schedule.sigma / VP.schedule.alpha)[::-1]

    def denoise(y: Array, _: float, ratio: float) -> Array:
        level = int(np.argmin(np.abs(ratios[::-1] - ratio)))
        alpha, sigma = float(VP.schedule.alpha[level]), float(VP.schedule.sigma[level])
        return plain_loops.mixture_denoiser(alpha * y, alpha, sigma)

    expected = plain_loops.annealed(
        START,
        [float(ratio) for ratio in ratios],
        denoise,
        draws().__next__,
        step_size=1e-6,
        each=1,
        image=True,
        last=True,
    )
    assert np.abs(run_table(VP, program, START) - expected).max() < 1e-8
    assert validate(program).signal_error < 1e-12


@pytest.mark.parametrize(
    "program",
    [
        ddpm(VP),
        ddpm(VP, steps=37),
        ddpm(VE),
        ddim(VP),
        ddim(VP, eta=0.7, raw_epsilon=True),
        ddim(VE, steps=10),
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


@pytest.mark.parametrize(
    ("sampler", "arguments", "message"),
    [
        ("milstein", {}, "unknown sampler 'milstein'"),
        ("ddpm", {"eta": 1.0}, "takes no 'eta'"),
        ("ddpm", {"steps": 0}, "0 steps on a schedule of 1000"),
        ("ddpm", {"steps": 1001}, "1001 steps on a schedule of 1000"),
        ("ddpm", {"steps": 2.5}, "steps is 2.5"),
        ("ddpm", {"variance": "huge"}, "unknown variance 'huge'"),
        ("ddpm", {"variance": "learned"}, "no learned variance"),
        ("ddim", {"eta": 1.5}, "eta 1.5"),
        ("langevin", {"step_size": 0.1, "level": 1000}, "level 1000"),
        ("langevin", {"step_size": -0.1}, "not positive"),
        ("langevin", {"step_size": 10**400}, "overflows with step_size 1000"),
        ("heun", {"churn": 10**400}, "overflows with churn 1000"),
        ("annealed_langevin", {"step_size": 1e300}, "a number that float32 cannot"),
        ("annealed_langevin", {"steps": 1500}, "do not divide among 1000"),
        ("annealed_langevin", {"convention": "tutorial"}, "unknown convention"),
        ("langevin", {"step_size": 0.1, "start": "uniform(8, -8)"}, "unknown start"),
        ("langevin", {"step_size": 0.1, "start": "normal(0)"}, "unknown start"),
    ],
)
def test_what_has_no_meaning_is_refused(
    sampler: str, arguments: dict[str, object], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        compile_program(VP, SamplerCall(sampler, arguments))


@pytest.mark.parametrize("spec", [VP, VE], ids=["vp", "ve"])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_sampler_needs_no_arguments_and_compiles_again_from_those_it_names(
    sampler: str, spec: ModelSpec
) -> None:
    program = compile_program(spec, SamplerCall(sampler))
    assert validate(program).signal_error < 1e-12
    assert next(iter(program.call.arguments)) == "steps"
    again = compile_program(spec, program.call)
    assert np.array_equal(again.table, program.table)
    assert again.name == program.name


def test_an_integer_will_do_for_a_number() -> None:
    assert compile_program(VP, SamplerCall("heun", {"churn": 4, "churn_max": 50})).name.startswith(
        "heun("
    )
    with pytest.raises(UsageError, match="churn_max is True"):
        compile_program(VP, SamplerCall("heun", {"churn_max": True}))


def test_where_langevin_starts_can_be_chosen() -> None:
    default = annealed_langevin(VE)
    assert str(default.start) == "uniform(0.0, 1.0)"
    chosen = annealed_langevin(VE, start="uniform(-8, 8)")
    assert (chosen.start.kind, chosen.start.low, chosen.start.high) == ("uniform", -8, 8)
    again = annealed_langevin(VE, **chosen.call.arguments)
    assert again.start == chosen.start


@pytest.mark.parametrize("spec", [VP, VE, EDM, NCSNV2], ids=["vp", "ve", "edm", "ncsnv2"])
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
