"""RePaint: DDPM that goes back and forth, so that what is given and what is drawn agree."""

from collections.abc import Iterator
from typing import Final

from difftool.diffusion.builder import ProgramBuilder, sampler
from difftool.diffusion.program import MAX_ROWS, Program
from difftool.diffusion.samplers.transfer import forward, fresh_noise, transfer
from difftool.diffusion.spacing import LINSPACE, steps_or, visited
from difftool.diffusion.spec import ModelSpec
from difftool.errors import UsageError

_LEVELS: Final = 250  # Lugmayr et al. 2022, section 5.1, as are 10 levels back and 10 times
_SHARE: Final = 25


@sampler
def repaint(
    spec: ModelSpec,
    *,
    steps: int | None = None,
    jump: int | None = None,
    resamples: int = 10,
    spacing: str = LINSPACE,
    clip: bool = True,
) -> Program:
    """RePaint's walk (Lugmayr et al. 2022, algorithm 1 with the jumps of appendix B).

    DDPM's rows with the small variance; but after every `jump` levels, the least noisy among them,
    x goes `jump` levels back by fresh noise, and down again, until it has come through `resamples`
    times. Meant for `difftool.edits.inpaint`; alone it is DDPM with churn. Going back is no
    evaluation: its noise is that of the row before it.

    `steps` are network evaluations; by default those of the paper's 250 levels. The levels are as
    few as have that many, and the last jumps are left out if they would have more. `jump` is by
    default a 25th of the levels, the paper's 10 of 250. `spacing` is one of
    `difftool.diffusion.spacing.visited`'s; `clip` keeps D in the data range.
    """
    if steps is not None and steps > MAX_ROWS:
        raise UsageError(f"{steps} steps", f"use at most {MAX_ROWS}")
    if resamples < 1 or (jump is not None and jump < 1):
        raise UsageError(f"{resamples} resamples of {jump} levels", "use 1 or more of both")

    def length(levels: int) -> int:
        return jump or max(1, levels // _SHARE)

    def evaluations(levels: int) -> int:
        back = length(levels)
        return levels + (resamples - 1) * back * len(range(0, levels - back, back))

    count = steps_or(None, _LEVELS, spec.schedule)
    if steps is not None:
        count = next(n for n in range(steps + 1) if evaluations(n) >= steps) if steps > 0 else steps
    levels = visited(spec.schedule, count, spacing, evaluations=evaluations, asked=steps)
    extra = (evaluations(count) if steps is None else steps) - count
    builder = ProgramBuilder(spec, clip=clip)
    for index, arrival in _walk(len(levels), length(count), resamples, extra):
        target, back = ([*levels, None][i] for i in (index + 1, arrival))
        current, following = builder.level(levels[index]), builder.level(target)
        fresh = fresh_noise(current, following, eta=1.0)
        a, b = transfer(current, following, fresh)
        grown, gained = forward(following, builder.level(back))
        noise = (grown**2 * fresh**2 + gained**2) ** 0.5
        builder.row(levels[index], back, a=grown * a, b=grown * b, d=noise)
    return builder.build()


def _walk(count: int, jump: int, resamples: int, extra: int) -> Iterator[tuple[int, int]]:
    """Each row's level, and the one that it leaves x at, counted from the most noise.

    `extra` evaluations are there for going back; level `count` is the clean sample.
    """
    left = {count - 1 - least: resamples - 1 for least in range(0, count - jump, jump)}
    index = 0
    while index < count:
        arrival = index + 1
        if left.get(arrival):
            left[arrival] -= 1
            back = min(jump, extra)
            extra -= back
            arrival -= back
        yield index, arrival
        index = arrival
