"""Multistep consistency sampling."""

from difftool.diffusion.builder import ProgramBuilder, sampler
from difftool.diffusion.program import Program
from difftool.diffusion.spacing import steps_or, transitions, visited
from difftool.diffusion.spec import ModelSpec


@sampler
def consistency(
    spec: ModelSpec, *, steps: int | None = None, spacing: str = "trailing", clip: bool = True
) -> Program:
    """Multistep consistency sampling (Song et al. 2023, algorithm 1).

    Every row takes D for the sample, and adds fresh noise up to the next level: x' = alpha' * D +
    sigma' * z. The last row is D. It suits a network that was distilled for it, by `difftool
    distill`; D of any other is a blurred mean of many samples.
    `difftool.diffusion.spacing.visited` lists the values of `spacing`; `clip` keeps D in the data
    range.
    """
    steps = steps_or(steps, 2, spec.schedule)
    builder = ProgramBuilder(spec, clip=clip)
    for level, target in transitions(visited(spec.schedule, steps, spacing)):
        alpha, sigma = builder.level(target)
        builder.row(level, target, a=0.0, b=alpha, d=sigma)
    return builder.build({"steps": steps})
