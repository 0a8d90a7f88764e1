"""Langevin dynamics at one noise level, and annealed over all levels."""

import math
from typing import Final

from difftool.diffusion.builder import ProgramBuilder, sampler
from difftool.diffusion.calls import require_known
from difftool.diffusion.program import MAX_ROWS, Program
from difftool.diffusion.spec import ModelSpec
from difftool.diffusion.start import Start, data, normal, parse_start, uniform
from difftool.errors import UsageError

CONVENTIONS = ("image", "paper")
_STEPS: Final = 1000  # Song and Ermon 2019, section 5: 10 levels of 100 steps,
_RATE: Final = 0.2  # and 2e-5 at a sigma of 0.01


@sampler
def langevin(
    spec: ModelSpec,
    *,
    steps: int = 1000,
    step_size: float | None = None,
    level: int = 0,
    convention: str = "paper",
    start: str | None = None,
) -> Program:
    """Langevin dynamics with the score at one noise level (Song and Ermon 2019, eq. 4).

    `level` is a schedule index; 0 has the least noise. `step_size` is by default 0.2 times the
    level's noise variance. See `annealed_langevin` for `convention` and `start`. A VP model's state
    is x / alpha.
    """
    if not 0 <= level < len(spec.schedule):
        last = len(spec.schedule) - 1
        raise UsageError(f"level {level} is not in the schedule", f"use 0 to {last}")
    builder = ProgramBuilder(spec, clip=False, scaled=True)
    step_size = _RATE * builder.level(level)[1] ** 2 if step_size is None else step_size
    _check(steps, step_size, convention)
    _add_rows(builder, level, steps, step_size, convention)
    decided = {"step_size": step_size}
    return builder.build(decided, start=_start(spec, start), exact_noise=False)


@sampler
def annealed_langevin(
    spec: ModelSpec,
    *,
    steps: int | None = None,
    step_size: float | None = None,
    convention: str = "image",
    denoise: bool = True,
    start: str | None = None,
) -> Program:
    """Annealed Langevin dynamics (Song and Ermon 2019, algorithm 1); `steps` over all levels.

    `steps` is by default the multiple of the number of levels nearest to the paper's 1000. At level
    i the step is s = step_size * (sigma_i / sigma_min)^2, by default the paper's 0.2 times the
    level's noise variance. With `convention` "image" a step is x += s * score + sqrt(2 s) * z, as
    in NCSN's image code; with "paper" it is x += s / 2 * score + sqrt(s) * z, as in its algorithm
    and toy code. `denoise` adds one last evaluation, x = D (Jolicoeur-Martineau et al. 2021).
    `start` is "uniform(low, high)" or "normal(std)". The default is uniform over the data range or,
    if the data is unbounded, normal with the noisiest level's std. A VP model's state is x / alpha.
    """
    levels = len(spec.schedule)
    steps = max(1, round(_STEPS / levels)) * levels if steps is None else steps
    builder = ProgramBuilder(spec, clip=False, scaled=True)
    sigma_min = builder.level(0)[1]
    step_size = _RATE * sigma_min**2 if step_size is None else step_size
    _check(steps, step_size, convention)
    if steps % levels:
        raise UsageError(
            f"{steps} steps do not divide among {levels} noise levels",
            f"use a multiple of {levels}; consistent_annealed takes fewer",
        )
    for level in reversed(range(levels)):
        scaled = step_size * (builder.level(level)[1] / sigma_min) ** 2
        _add_rows(builder, level, steps // levels, scaled, convention)
    if denoise:
        builder.row(0, None, a=0.0, b=1.0)
    decided = {"steps": steps, "step_size": step_size}
    return builder.build(decided, start=_start(spec, start), exact_noise=False)


def _add_rows(
    builder: ProgramBuilder, level: int, count: int, step_size: float, convention: str
) -> None:
    drift = step_size if convention == "image" else step_size / 2
    sigma = builder.level(level)[1]
    rate = drift / sigma**2  # the score is (D - x) / sigma^2
    for _ in range(count):
        builder.row(level, level, a=1 - rate, b=rate, d=math.sqrt(2 * drift))


def _start(spec: ModelSpec, start: str | None) -> Start:
    if start is not None:
        return parse_start(start)
    if spec.schedule.dropped:
        return data()
    if spec.data_range:
        return uniform(*spec.data_range)
    return normal(float(spec.schedule.sigma[-1] / spec.schedule.alpha[-1]))


def _check(steps: int, step_size: float, convention: str) -> None:
    if not 1 <= steps <= MAX_ROWS:
        raise UsageError(f"{steps} steps", f"use 1 to {MAX_ROWS}")
    if not 0 < step_size < math.inf:
        raise UsageError(f"step size {step_size} is not positive", "the papers use 2e-5 to 0.1")
    require_known("convention", convention, CONVENTIONS)
