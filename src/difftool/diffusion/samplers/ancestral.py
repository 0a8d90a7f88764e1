"""DDPM's ancestral sampler."""

import math
from functools import partial

from difftool.diffusion.builder import ProgramBuilder, sampler
from difftool.diffusion.calls import require_known
from difftool.diffusion.program import Program
from difftool.diffusion.spacing import LINSPACE, transitions, visited
from difftool.diffusion.spec import ModelSpec
from difftool.errors import UsageError

VARIANCES = ("small", "large", "learned")


@partial(sampler, later=("spacing",))
def ddpm(
    spec: ModelSpec,
    *,
    steps: int | None = None,
    variance: str = "small",
    clip: bool = True,
    spacing: str = LINSPACE,
) -> Program:
    """DDPM (Ho et al. 2020, algorithm 2 and eq. 7), on `steps` levels (all by default).

    `variance` is "small" (the posterior's, beta tilde), "large" (beta) or "learned" (interpolated
    between the two by the network; Nichol and Dhariwal 2021, eq. 15). `clip` keeps D in the data
    range. `difftool.diffusion.spacing.visited` lists the values of `spacing`. The last row adds no
    noise.
    """
    require_known("variance", variance, VARIANCES)
    if variance == "learned" and not spec.learned_variance:
        raise UsageError("this model has no learned variance", "use variance small or large")
    steps = len(spec.schedule) if steps is None else steps
    builder = ProgramBuilder(spec, clip=clip)
    for level, target in transitions(visited(spec.schedule, steps, spacing)):
        a, b, small, large = _posterior(builder.level(level), builder.level(target))
        if target is None:
            builder.row(level, target, a=a, b=b)
        elif variance == "learned":
            logvar = (2 * math.log(small), 2 * math.log(large))
            builder.row(level, target, a=a, b=b, d=1.0, logvar=logvar)
        else:
            builder.row(level, target, a=a, b=b, d=large if variance == "large" else small)
    return builder.build({"steps": steps}, exact_noise=variance != "large")


def _posterior(
    level: tuple[float, float], target: tuple[float, float]
) -> tuple[float, float, float, float]:
    """Return a, b and the std of q(x_target | x_level, x0), and the forward step's std.

    The mean of q is a * x + b * x0.
    """
    (alpha_s, sigma_s), (alpha_t, sigma_t) = level, target
    ratio = alpha_s / alpha_t
    forward = sigma_s**2 - ratio**2 * sigma_t**2
    a = ratio * sigma_t**2 / sigma_s**2
    b = alpha_t * forward / sigma_s**2
    return a, b, sigma_t / sigma_s * math.sqrt(forward), math.sqrt(forward)
