"""DDIM."""

import math
from functools import partial

from difftool.diffusion.builder import ProgramBuilder, sampler
from difftool.diffusion.program import Program
from difftool.diffusion.spacing import LINSPACE, steps_or, transitions, visited
from difftool.diffusion.spec import ModelSpec
from difftool.errors import UsageError


@partial(sampler, later=("spacing",))
def ddim(
    spec: ModelSpec,
    *,
    steps: int | None = None,
    eta: float = 0.0,
    clip: bool = True,
    raw_epsilon: bool = False,
    spacing: str = LINSPACE,
) -> Program:
    """DDIM (Song et al. 2021a, eq. 12); eta=1 is DDPM with the small variance.

    A row carries on the noise that the clipped D implies. With `raw_epsilon` it carries on the
    network's own noise, unclipped, as the diffusers library does by default.
    `difftool.diffusion.spacing.visited` lists the values of `spacing`; the paper's CIFAR-10 samples
    use "quadratic".
    """
    if not 0 <= eta <= 1:
        raise UsageError(f"eta {eta} is not in 0 .. 1", "0 is deterministic, 1 is DDPM")
    steps = steps_or(steps, 50, spec.schedule)
    builder = ProgramBuilder(spec, clip=clip)
    for level, target in transitions(visited(spec.schedule, steps, spacing)):
        (alpha_s, sigma_s), (alpha_t, sigma_t) = builder.level(level), builder.level(target)
        forward = sigma_s**2 - (alpha_s / alpha_t) ** 2 * sigma_t**2
        fresh = eta * sigma_t / sigma_s * math.sqrt(forward)
        kept = math.sqrt(max(sigma_t**2 - fresh**2, 0.0))
        if raw_epsilon:
            # epsilon = (x - alpha * (c_skip * x + c_out * F)) / sigma, written out on x and F
            _, c_skip, c_out = (float(column) for column in spec.coefficients(level))
            a, g = kept * (1 - alpha_s * c_skip) / sigma_s, -kept * alpha_s * c_out / sigma_s
            builder.row(level, target, a=a, b=alpha_t, g=g, d=fresh)
        else:
            a = kept / sigma_s
            builder.row(level, target, a=a, b=alpha_t - a * alpha_s, d=fresh)
    return builder.build({"steps": steps})
