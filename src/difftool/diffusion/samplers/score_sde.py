"""Samplers of score-based SDEs: the reverse SDE, its probability flow, and Langevin correctors."""

import math

from difftool.diffusion.builder import ProgramBuilder
from difftool.diffusion.program import Program
from difftool.diffusion.samplers.transfer import Level, fresh_noise, transfer
from difftool.diffusion.spacing import LINSPACE, transitions, visited
from difftool.diffusion.spec import ModelSpec
from difftool.errors import UsageError

PREDICTORS = ("reverse_diffusion", "ancestral")


def reverse_diffusion(
    spec: ModelSpec, *, steps: int | None = None, spacing: str = LINSPACE, clip: bool = True
) -> Program:
    """The reverse SDE discretized as the forward one is (Song et al. 2021, eq. 46).

    With G^2 = sigma^2 - sigma'^2, x' = x + G^2 * score + G * z, on all levels by default; the last
    row adds no noise. A VP model's state is x / alpha, where this keeps the signal exact; the
    paper's factor 2 - sqrt(1 - beta) on x does to first order in beta. The noise that is left
    exceeds the level's, for the paper's discretization is of first order: few steps need `clip`,
    which keeps D in the data range, and which the paper does without.
    """
    builder = ProgramBuilder(spec, clip=clip, scaled=True)
    for level, target in transitions(visited(spec.schedule, _all(spec, steps), spacing)):
        _predict(builder, level, target, "reverse_diffusion")
    arguments = {"steps": steps, "spacing": spacing, "clip": clip}
    return builder.build("reverse_diffusion", arguments, exact_noise=False)


def probability_flow(
    spec: ModelSpec, *, steps: int | None = None, spacing: str = LINSPACE, clip: bool = True
) -> Program:
    """The probability-flow ODE, discretized as `reverse_diffusion` (Song et al. 2021, eq. 47).

    x' = x + G^2 / 2 * score, without noise; the last row is D. Like there, a row meets the next
    level's noise to first order only; `euler` meets it exactly.
    """
    builder = ProgramBuilder(spec, clip=clip, scaled=True)
    for level, target in transitions(visited(spec.schedule, _all(spec, steps), spacing)):
        sigma, following = builder.level(level)[1], builder.level(target)[1]
        rate = 1.0 if target is None else (1 - (following / sigma) ** 2) / 2
        builder.row(level, target, a=1 - rate, b=rate)
    arguments = {"steps": steps, "spacing": spacing, "clip": clip}
    return builder.build("probability_flow", arguments, exact_noise=False)


def predictor_corrector(
    spec: ModelSpec,
    *,
    steps: int | None = None,
    corrections: int = 1,
    snr: float = 0.16,
    predictor: str = "reverse_diffusion",
    spacing: str = LINSPACE,
    clip: bool = True,
) -> Program:
    """Langevin steps at each level, then one to the next (Song et al. 2021, algorithms 2 to 5).

    `steps` are network evaluations, 1 + `corrections` a level; all levels by default. `predictor`
    is "reverse_diffusion" or "ancestral", `ddpm`'s row. A correction moves x by tau * score +
    sqrt(2 tau) * z. The paper's tau is 2 alpha (snr |z| / |score|)^2, norms averaged over the
    batch. Here |z| / |score| is sigma, what it is for a perfect score; so a sample does not depend
    on its neighbours. alpha is 1 for VE models, and for VP models the squared signal that the
    step to this level keeps. A VP model's state is x / alpha; `clip` is as in `reverse_diffusion`.
    """
    if predictor not in PREDICTORS:
        raise UsageError(f"unknown predictor {predictor!r}", f"one of: {', '.join(PREDICTORS)}")
    if corrections < 1 or snr <= 0:
        raise UsageError(
            f"{corrections} corrections with snr {snr}", "use at least 1, and a positive snr"
        )
    each = 1 + corrections
    if steps is not None and steps % each:
        raise UsageError(
            f"{steps} steps do not divide by {each}, one prediction and {corrections} corrections",
            f"use a multiple of {each}",
        )
    visits = len(spec.schedule) if steps is None else steps // each
    builder = ProgramBuilder(spec, clip=clip, scaled=True)
    for level, target in transitions(visited(spec.schedule, visits, spacing)):
        kept = _signal(spec, level) / _signal(spec, target)
        rate = 2 * (snr * kept) ** 2  # tau / sigma^2
        for _ in range(corrections):
            noise = math.sqrt(2 * rate) * builder.level(level)[1]
            builder.row(level, level, a=1 - rate, b=rate, d=noise)
        _predict(builder, level, target, predictor)
    arguments = {
        "steps": steps,
        "corrections": corrections,
        "snr": snr,
        "predictor": predictor,
        "spacing": spacing,
        "clip": clip,
    }
    return builder.build("predictor_corrector", arguments, exact_noise=False)


def _predict(builder: ProgramBuilder, level: float, target: float | None, predictor: str) -> None:
    current, following = builder.level(level), builder.level(target)
    if predictor == "ancestral":
        fresh = fresh_noise(current, following, eta=1.0)
        a, b = transfer(current, following, fresh)
    else:
        a, b, fresh = _reverse_diffusion(current, following)
    builder.row(level, target, a=a, b=b, d=0.0 if target is None else fresh)


def _reverse_diffusion(current: Level, following: Level) -> tuple[float, float, float]:
    rate = 1 - (following[1] / current[1]) ** 2  # G^2 / sigma^2; the score is (D - x) / sigma^2
    return 1 - rate, rate, current[1] * math.sqrt(rate)


def _signal(spec: ModelSpec, level: float | None) -> float:
    return 1.0 if level is None else float(spec.schedule.at(level)[0])


def _all(spec: ModelSpec, steps: int | None) -> int:
    return len(spec.schedule) if steps is None else steps
