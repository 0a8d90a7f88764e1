"""Euler's method, as an ODE and with ancestral noise."""

from difftool.diffusion.builder import ProgramBuilder, sampler
from difftool.diffusion.program import Program
from difftool.diffusion.samplers.transfer import fresh_noise, transfer
from difftool.diffusion.spacing import LINSPACE, steps_or, transitions, visited
from difftool.diffusion.spec import ModelSpec
from difftool.errors import UsageError


@sampler
def euler(
    spec: ModelSpec, *, steps: int | None = None, spacing: str = LINSPACE, clip: bool = True
) -> Program:
    """Euler's method (Karras et al. 2022, algorithm 1 without its correction).

    It solves the ODE of y = x / alpha, dy/ds = (y - D) / s with s = sigma / alpha, and equals DDIM
    with eta=0. `difftool.diffusion.spacing.visited` lists the values of `spacing`; `clip` keeps D
    in the data range.
    """
    return _program(spec, steps, 0.0, spacing, clip)


@sampler
def euler_ancestral(
    spec: ModelSpec,
    *,
    steps: int | None = None,
    eta: float = 1.0,
    spacing: str = LINSPACE,
    clip: bool = True,
) -> Program:
    """Euler's method to less noise than the next level's, with fresh noise for the rest.

    The fresh noise is `eta` times the posterior's (Song et al. 2021a, eq. 16, in the coordinates of
    `euler`); 1 is DDPM with the small variance, 0 is `euler`.
    """
    if not 0 <= eta <= 1:
        raise UsageError(f"eta {eta} is not in 0 .. 1", "0 is deterministic, 1 is DDPM")
    return _program(spec, steps, eta, spacing, clip)


def _program(spec: ModelSpec, steps: int | None, eta: float, spacing: str, clip: bool) -> Program:
    steps = steps_or(steps, 50, spec.schedule)
    builder = ProgramBuilder(spec, clip=clip)
    for level, target in transitions(visited(spec.schedule, steps, spacing)):
        current, following = builder.level(level), builder.level(target)
        fresh = eta * fresh_noise(current, following, eta=1.0)
        a, b = transfer(current, following, fresh)
        builder.row(level, target, a=a, b=b, d=fresh)
    return builder.build({"steps": steps})
