"""UniPC: a multistep predictor whose corrector needs no evaluation of its own."""

import math

import numpy as np
from numpy.typing import NDArray

from difftool.diffusion.builder import ProgramBuilder, sampler
from difftool.diffusion.program import Program
from difftool.diffusion.samplers.transfer import KEEP_DENOISED, gap, transfer
from difftool.diffusion.spacing import LINSPACE, steps_or, transitions, visited
from difftool.diffusion.spec import ModelSpec
from difftool.errors import UsageError

Array = NDArray[np.float64]

ORDERS = (1, 2, 3)


@sampler
def unipc(
    spec: ModelSpec,
    *,
    steps: int | None = None,
    order: int = 3,
    spacing: str = LINSPACE,
    clip: bool = True,
) -> Program:
    """UniPC with B(h) = e^h - 1, "bh2", on D (Zhao et al. 2023, algorithms 5 and 6).

    `order` is 1 to 3. The corrector of a step runs in the next row, on the D that is evaluated
    there anyway. Predictor and corrector share their linear part, so the corrected x is x plus a
    weighted sum of D and the history. The order is lower near the ends, with fewer rows behind or
    ahead, and the last step is not corrected. `difftool.diffusion.spacing.visited` lists the values
    of `spacing`; `clip` keeps D in the data range.
    """
    if order not in ORDERS:
        raise UsageError(f"UniPC of order {order}", "use order 1, 2 or 3")
    steps = steps_or(steps, 20, spec.schedule)
    levels = visited(spec.schedule, steps, spacing)
    builder = ProgramBuilder(spec, clip=clip)
    states = [builder.level(level) for level in levels]
    correction = np.zeros(order + 1)  # weights on D and the history
    for index, (level, target) in enumerate(transitions(levels)):
        current, following = states[index], builder.level(target)
        a, b = transfer(current, following)
        weights = a * correction
        weights[0] += b
        if target is not None:
            h = gap(current, following)
            used = min(order, index + 1, len(levels) - index)
            behind = [gap(current, states[index - k]) / h for k in range(1, used)]
            predictor, corrector = _weights(b, h, behind), _weights(b, h, [*behind, 1.0])
            weights[:used] += predictor
            correction = np.zeros(order + 1)
            correction[0] = corrector[-1]
            correction[1 : used + 1] = corrector[:-1] - predictor
        builder.row(level, target, a=a, b=weights[0], c=weights[1:].tolist(), push=KEEP_DENOISED)
    return builder.build({"steps": steps})


def _weights(b: float, h: float, offsets: list[float]) -> Array:
    """Return the weights of b * sum_k rho_k / r_k * (D_k - D_0) on D_0 and on each D_k.

    The offsets r_k are in units of the step's gap h. rho solves the order conditions (Zhao et al.
    2023, eq. 5); a single rho is 1/2 for any h (appendix F).
    """
    count = len(offsets)
    rho = np.array([0.5])
    if count != 1:
        moments = np.vander(offsets, count, increasing=True).T
        rho = np.linalg.solve(moments, _conditions(h, count))
    weights = b * rho / np.array(offsets)
    return np.array([-weights.sum(), *weights])


def _conditions(h: float, count: int) -> Array:
    """Return the right-hand side, n! * h * phi_{n+1}(-h) / B(h) for n = 1 .. count."""
    phi = math.expm1(-h)
    values = []
    for n in range(1, count + 1):
        phi = phi / -h - 1 / math.factorial(n)
        values.append(math.factorial(n) * phi / math.expm1(-h))
    return np.array(values)
