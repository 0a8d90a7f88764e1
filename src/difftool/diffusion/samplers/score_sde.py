"""Samplers of score-based SDEs: the reverse SDE, its probability flow, and Langevin correctors."""

import math

from difftool.diffusion.builder import ProgramBuilder, sampler
from difftool.diffusion.calls import require_known
from difftool.diffusion.program import Program
from difftool.diffusion.samplers.transfer import fresh_noise, transfer
from difftool.diffusion.spacing import LINSPACE, transitions, visited
from difftool.diffusion.spec import ModelSpec
from difftool.errors import UsageError

PREDICTORS = ("reverse_diffusion", "ancestral")
CORRECTORS = ("fixed", "adaptive", "reference")


@sampler
def reverse_diffusion(
    spec: ModelSpec, *, steps: int | None = None, spacing: str = LINSPACE, clip: bool = True
) -> Program:
    """The reverse SDE, discretized like the forward SDE (Song et al. 2021b, eq. 46).

    With G^2 = sigma^2 - sigma'^2 a row is x' = x + G^2 * score + G * z. It visits all levels by
    default, and the last row adds no noise. A VP model's state is x / alpha: there the signal is
    exact, while the paper's factor 2 - sqrt(1 - beta) on x is exact to first order in beta. The
    noise in x exceeds the level's, since the discretization has first order. So few steps need
    `clip`, which keeps D in the data range; the paper does not clip.
    """
    builder = ProgramBuilder(spec, clip=clip, scaled=True)
    for level, target in transitions(visited(spec.schedule, steps, spacing)):
        _predict(builder, level, target, "reverse_diffusion")
    return builder.build(exact_noise=False)


@sampler
def probability_flow(
    spec: ModelSpec, *, steps: int | None = None, spacing: str = LINSPACE, clip: bool = True
) -> Program:
    """The probability-flow ODE, discretized as `reverse_diffusion` (Song et al. 2021b, eq. 47).

    A row is x' = x + G^2 / 2 * score, without noise; the last row is D. This is Euler's method over
    sigma^2, which meets the next level's noise only to first order. It is here to repeat the
    paper's runs. `euler` solves the same equation over sigma, and its rows meet the noise exactly.
    """
    builder = ProgramBuilder(spec, clip=clip, scaled=True)
    for level, target in transitions(visited(spec.schedule, steps, spacing)):
        sigma, following = builder.level(level)[1], builder.level(target)[1]
        rate = 1.0 if target is None else (1 - (following / sigma) ** 2) / 2
        builder.row(level, target, a=1 - rate, b=rate)
    return builder.build(exact_noise=False)


@sampler
def predictor_corrector(
    spec: ModelSpec,
    *,
    steps: int | None = None,
    corrections: int = 1,
    snr: float = 0.16,
    predictor: str = "reverse_diffusion",
    corrector: str = "fixed",
    spacing: str = LINSPACE,
    clip: bool = True,
) -> Program:
    """Langevin steps at each level, then one to the next (Song et al. 2021b, algorithms 2 to 5).

    `steps` counts network evaluations, 1 + `corrections` at each level; by default it visits all
    levels. `predictor` is "reverse_diffusion" or "ancestral", `ddpm`'s row. A correction moves x by
    tau * score + sqrt(2 tau) * z with the paper's tau = 2 alpha (snr |z| / |score|)^2. `corrector`
    chooses the norms:

    - "fixed": |z| / |score| is sigma at every step, as it is for a perfect score
    - "adaptive": the norms of each sample
    - "reference": their means over the batch, as in the paper; samples depend on each other

    The last two need a step graph with "norms". alpha is 1 for VE models; for VP models it is the
    squared signal that the step to this level keeps. A VP model's state is x / alpha, and tau is
    the same there. `clip` is as in `reverse_diffusion`.
    """
    require_known("predictor", predictor, PREDICTORS)
    require_known("corrector", corrector, CORRECTORS)
    if corrections < 1 or snr <= 0:
        raise UsageError(
            f"{corrections} corrections with snr {snr}",
            "use at least 1 correction, and a positive snr",
        )
    each = 1 + corrections
    if steps is not None and steps % each:
        raise UsageError(
            f"{steps} steps do not divide by {each}, one prediction and {corrections} corrections",
            f"use a multiple of {each}",
        )
    visits = None if steps is None else steps // each
    levels = visited(spec.schedule, visits, spacing, evaluations=lambda levels: levels * each)
    builder = ProgramBuilder(spec, clip=clip, scaled=True)
    for level, target in transitions(levels):
        alpha = 1.0 if target is None else float(spec.schedule.at(target)[0])
        kept = float(spec.schedule.at(level)[0]) / alpha
        for _ in range(corrections):
            _correct(builder, level, snr * kept, corrector)
        _predict(builder, level, target, predictor)
    return builder.build(exact_noise=False)


def _predict(builder: ProgramBuilder, level: float, target: float | None, predictor: str) -> None:
    current, following = builder.level(level), builder.level(target)
    if predictor == "ancestral":
        fresh = fresh_noise(current, following, eta=1.0)
        a, b = transfer(current, following, fresh)
    else:
        # G^2 / sigma^2; the score is (D - x) / sigma^2
        b = 1 - (following[1] / current[1]) ** 2
        a, fresh = 1 - b, current[1] * math.sqrt(b)
    builder.row(level, target, a=a, b=b, d=0.0 if target is None else fresh)


def _correct(builder: ProgramBuilder, level: float, snr: float, corrector: str) -> None:
    sigma = builder.level(level)[1]
    if corrector == "fixed":
        rate = 2 * snr**2  # tau / sigma^2; the score is (D - x) / sigma^2
        builder.row(level, level, a=1 - rate, b=rate, d=math.sqrt(2 * rate) * sigma)
        return
    # With the drift u = D - x and the noise w = sqrt(2) * sigma * z, r = snr |w| / |u| is
    # sqrt(tau) / sigma.
    own, shared = (snr, 0.0) if corrector == "adaptive" else (0.0, snr)
    noise = math.sqrt(2) * sigma
    builder.row(level, level, a=0.0, b=1.0, d=noise, snr=own, batch_snr=shared)
