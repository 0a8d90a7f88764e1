"""PLMS: the noise estimate extrapolated by the Adams-Bashforth method."""

from difftool.diffusion.builder import ProgramBuilder
from difftool.diffusion.program import Program
from difftool.diffusion.samplers.transfer import ratio, transfer
from difftool.diffusion.spacing import BETWEEN_LEVELS, LINSPACE, steps_or, transitions, visited
from difftool.diffusion.spec import ModelSpec
from difftool.errors import UsageError

# What the formulas add to a step along epsilon: weights on it and on the history, which sum to 0.
# By row from the second level on; the slot with weight 0 holds the correction's epsilon, used up.
_START = (
    (1 / 2, 0, -1 / 2),
    (11 / 12, -16 / 12, 0, 5 / 12),
    (31 / 24, -59 / 24, 37 / 24, 0, -9 / 24),
)
_FOURTH_ORDER = (31 / 24, -59 / 24, 37 / 24, -9 / 24)


def plms(
    spec: ModelSpec, *, steps: int | None = None, spacing: str = LINSPACE, clip: bool = True
) -> Program:
    """PLMS, pseudo linear multistep (Liu et al. 2022, eqs. 11 and 12), without Runge-Kutta start.

    The first step is corrected by a second evaluation, as in Heun's method; then come the two- and
    three-step formulas, and from there the four-step one. So `steps` evaluations visit one level
    less. The formulas are for even timesteps, and unstable where levels are even in their logarithm
    and far apart; so `spacing` is one of those that keep to whole levels. `clip` keeps D, and with
    it epsilon, in the data range.
    """
    if spacing in BETWEEN_LEVELS:
        raise UsageError(
            f"PLMS needs even timesteps, and spacing {spacing} has none",
            "use spacing linspace; dpmpp_2m, dpmpp_3m and unipc take any",
        )
    steps = steps_or(None, 49, spec.schedule) + 1 if steps is None else steps
    if steps < 3:
        raise UsageError(f"PLMS with {steps} steps", "use at least 3; the first level takes two")
    levels = visited(spec.schedule, steps - 1, spacing)
    builder = ProgramBuilder(spec, clip=clip)
    for index, (level, target) in enumerate(transitions(levels)):
        current, following = builder.level(level), builder.level(target)
        step = transfer(current, following)
        # x' = alpha' / alpha * x + gained * epsilon
        gained = following[1] - following[0] * ratio(current)
        if index == 0:
            _add_row(builder, level, target, step, [0.0])
            _add_row(builder, levels[1], target, (1.0, 0.0), [gained / 2, -gained / 2])
        else:
            weights = _START[index - 1] if index <= len(_START) else _FOURTH_ORDER
            _add_row(builder, level, target, step, [gained * weight for weight in weights])
    return builder.build("plms", {"steps": steps, "spacing": spacing, "clip": clip})


def _add_row(
    builder: ProgramBuilder,
    level: float,
    target: float | None,
    step: tuple[float, float],
    weights: list[float],
) -> None:
    """A step (a, b), and `weights` on the epsilon at `level` and on those of the history."""
    alpha, sigma = builder.level(level)
    epsilon = (1 / sigma, -alpha / sigma)  # on x and on D
    newest, *older = weights
    a, b = step[0] + newest * epsilon[0], step[1] + newest * epsilon[1]
    builder.row(level, target, a=a, b=b, c=older, push=epsilon)
