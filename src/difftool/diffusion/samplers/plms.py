"""PLMS: extrapolate the noise estimate by the Adams-Bashforth method."""

from typing import Final

from difftool.diffusion.builder import ProgramBuilder, sampler
from difftool.diffusion.program import Program
from difftool.diffusion.samplers.transfer import KEEP_DENOISED, Level, ratio, transfer
from difftool.diffusion.spacing import BETWEEN_LEVELS, LINSPACE, steps_or, transitions, visited
from difftool.diffusion.spec import ModelSpec
from difftool.errors import UsageError

# The formulas as corrections of a plain step along epsilon: weights on the epsilon of this row and
# of earlier ones, newest first, which sum to 0. The second level has the first formula, and so on.
_FORMULAS = (
    (1 / 2, -1 / 2),
    (11 / 12, -16 / 12, 5 / 12),
    (31 / 24, -59 / 24, 37 / 24, -9 / 24),
)
_KEEP_STATE: Final = (1.0, 0.0)  # the (e, f) that write x into the history


@sampler
def plms(
    spec: ModelSpec, *, steps: int | None = None, spacing: str = LINSPACE, clip: bool = True
) -> Program:
    """PLMS, pseudo linear multistep (Liu et al. 2022, eqs. 11 and 12), without Runge-Kutta start.

    A second evaluation corrects the first step, as in Heun's method. Then come the two- and
    three-step formulas, and from there on the four-step one. So `steps` evaluations visit
    `steps` - 1 levels. The formulas assume evenly spaced timesteps. They are unstable on levels far
    apart that are evenly spaced in their logarithm, so `spacing` must be one that keeps to whole
    levels. `clip` keeps D, and with it epsilon, in the data range.
    """
    if spacing in BETWEEN_LEVELS:
        raise UsageError(
            f"PLMS needs even timesteps, and spacing {spacing} has none",
            "use spacing linspace; dpmpp_2m, dpmpp_3m and unipc take any",
        )
    if len(spec.schedule) < 2:
        raise UsageError("PLMS on a single noise level", "it takes 2; use ddim or euler")
    steps = steps_or(None, 49, spec.schedule) + 1 if steps is None else steps
    if steps < 3:
        raise UsageError(f"PLMS with {steps} steps", "use at least 3; ddim and euler take fewer")
    levels = visited(
        spec.schedule, steps - 1, spacing, evaluations=lambda levels: max(3, levels + 1)
    )
    builder = ProgramBuilder(spec, clip=clip)
    for index, (level, target) in enumerate(transitions(levels)):
        current, following = builder.level(level), builder.level(target)
        a, b = transfer(current, following)
        # x' = alpha' / alpha * x + gained * epsilon
        gained = following[1] - following[0] * ratio(current)
        if index == 0:
            builder.row(level, target, a=a, b=b, push=KEEP_DENOISED)
            # x was made with the first D as well, so epsilon changes in proportion to D.
            half = gained / 2 / ratio(following)
            builder.row(levels[1], target, a=1.0, b=-half, c=[half], push=_KEEP_STATE)
            continue
        newest, *older = (gained * w for w in _FORMULAS[min(index, len(_FORMULAS)) - 1])
        if index <= len(_FORMULAS):
            # The history has no epsilon of the first row, but its D, and x as the correction kept
            # it. So the oldest weight is split into weights on these two.
            older[-1:] = [older[-1] * weight for weight in _epsilon(builder.level(levels[1]))]
        on_x, on_denoised = epsilon = _epsilon(current)
        a, b = a + newest * on_x, b + newest * on_denoised
        builder.row(level, target, a=a, b=b, c=older, push=epsilon)
    return builder.build({"steps": steps})


def _epsilon(level: Level) -> tuple[float, float]:
    """Return the noise in x as weights on x and on D."""
    alpha, sigma = level
    return 1 / sigma, -alpha / sigma
