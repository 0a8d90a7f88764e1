"""Heun's method with churn."""

import math
from typing import Final

from difftool.diffusion.builder import ProgramBuilder, sampler
from difftool.diffusion.program import Program
from difftool.diffusion.samplers.transfer import KEEP_DENOISED, forward, ratio, transfer
from difftool.diffusion.schedules import NoiseSchedule
from difftool.diffusion.spacing import LINSPACE, steps_or, visited
from difftool.diffusion.spec import ModelSpec
from difftool.errors import UsageError

_MOST_CHURN: Final = math.sqrt(2) - 1  # a level's noise at most doubles its variance


@sampler
def heun(
    spec: ModelSpec,
    *,
    steps: int | None = None,
    churn: float = 0.0,
    churn_min: float = 0.0,
    churn_max: float | None = None,
    churn_noise: float = 1.0,
    spacing: str = LINSPACE,
    clip: bool = True,
) -> Program:
    """Heun's method with churn (Karras et al. 2022, algorithm 2), on y = x / alpha.

    `steps` counts network evaluations: two at each level, but one at the least noisy level. So N
    levels of the paper take 2 N - 1, by default its 35. With an even number the second last level
    goes without its correction. `churn`, `churn_min`, `churn_max` and `churn_noise` are the
    paper's S_churn, S_tmin, S_tmax and S_noise, in units of sigma / alpha. Churn never goes beyond
    the noisiest level, and x starts at the noise to which churn raises the first level.
    `difftool.diffusion.spacing.visited` lists the values of `spacing`; the paper's is "karras".
    """
    if churn < 0 or churn_min < 0 or churn_noise <= 0:
        raise UsageError(
            "churn or churn_min is negative, or churn_noise is not positive",
            "the paper's churn is 0 to 80, and its noise about 1",
        )
    steps = 2 * steps_or(None, 18, spec.schedule) - 1 if steps is None else steps
    levels = visited(
        spec.schedule,
        steps // 2 + 1 if steps > 0 else 0,
        spacing,
        evaluations=lambda levels: 2 * levels - 1,
        asked=steps,
    )
    gamma = min(churn / len(levels), _MOST_CHURN)
    bounds = (churn_min, math.inf if churn_max is None else churn_max)
    churned = [_churned(spec.schedule, level, gamma, bounds) for level in levels]
    builder = ProgramBuilder(spec, clip=clip)
    targets, arrivals = [*levels[1:], None], [*churned[1:], None]
    for level, target, arrival in zip(churned, targets, arrivals, strict=True):
        current, following = builder.level(level), builder.level(target)
        a, b = transfer(current, following)
        grown, gained = forward(following, builder.level(arrival))
        fresh = churn_noise * gained
        if target is None or (steps % 2 == 0 and target == levels[-1]):
            builder.row(level, arrival, a=grown * a, b=grown * b, d=fresh, push=KEEP_DENOISED)
            continue
        builder.row(level, target, a=a, b=b, push=KEEP_DENOISED)
        # The mean of both slopes is the first plus half their difference. At t the state is y, and
        # (y - D1) / t is the first slope again, so the difference is (D1 - D2) / t.
        half = grown * following[0] * (ratio(current) / ratio(following) - 1) / 2
        builder.row(target, arrival, a=grown, b=half, c=[-half], d=fresh, push=KEEP_DENOISED)
    exact = churn_noise == 1 or churned[1:] == levels[1:]
    return builder.build({"steps": steps}, exact_noise=exact)


def _churned(
    schedule: NoiseSchedule, level: float, gamma: float, bounds: tuple[float, float]
) -> float:
    """Return the schedule index of 1 + gamma times the noise at `level`, if that is in `bounds`."""
    alpha, sigma = schedule.at(level)
    noise = float(sigma / alpha)
    if gamma == 0 or not bounds[0] <= noise <= bounds[1]:
        return level
    return float(schedule.find(-math.log(noise * (1 + gamma))))
