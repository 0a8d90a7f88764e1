"""Consistent annealed sampling."""

import math
from itertools import pairwise

from difftool.diffusion.builder import ProgramBuilder, sampler
from difftool.diffusion.program import Program
from difftool.diffusion.samplers.transfer import Level
from difftool.diffusion.spacing import transitions, visited
from difftool.diffusion.spec import ModelSpec
from difftool.errors import UsageError


@sampler
def consistent_annealed(
    spec: ModelSpec,
    *,
    steps: int | None = None,
    step_size: float | None = None,
    spacing: str = "half_log_snr",
) -> Program:
    """Consistent annealed sampling (Jolicoeur-Martineau et al. 2021, algorithm 2).

    This is annealed Langevin dynamics with one evaluation a level, all levels by default. Each row
    adds exactly the noise that brings x to the next level. A row moves x by
    eta = step_size / sigma_min^2 of the way to D. For every two neighbouring levels eta must lie
    within 1 -+ sigma'/sigma. The default is 3/2 of the smallest such eta, near the paper's, and at
    most 1. The last row is D. Levels are spaced as in the paper, also if there are more steps than
    levels. A VP model's state is x / alpha.
    """
    levels = visited(spec.schedule, steps, spacing)
    builder = ProgramBuilder(spec, clip=False, scaled=True)
    states = [builder.level(level) for level in levels]
    eta = _eta(states, step_size)
    for level, target in transitions(levels):
        if target is None:
            builder.row(level, None, a=0.0, b=1.0)
            continue
        sigma, following = builder.level(level)[1], builder.level(target)[1]
        fresh = math.sqrt(max(following**2 - ((1 - eta) * sigma) ** 2, 0.0))
        builder.row(level, target, a=1 - eta, b=eta, d=fresh)
    return builder.build()


def _eta(states: list[Level], step_size: float | None) -> float:
    """Return the share of the way to D; UsageError if two levels are too far apart for it."""
    gamma = min((t / s for (_, s), (_, t) in pairwise(states)), default=1.0)
    sigma_min = states[-1][1]
    eta = min(1.5 * (1 - gamma), 1.0) if step_size is None else step_size / sigma_min**2
    if not 1 - gamma <= eta <= 1 + gamma:
        low, high = ((1 + sign * gamma) * sigma_min**2 for sign in (-1, 1))
        raise UsageError(
            f"levels this far apart need a step size between {low:.3g} and {high:.3g}",
            "give one as step_size, or raise steps",
        )
    return eta
