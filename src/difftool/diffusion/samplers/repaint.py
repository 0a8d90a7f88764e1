"""RePaint: DDPM that goes back and forth, so that given and drawn parts of a sample agree."""

from collections.abc import Iterator
from typing import Final

from difftool.diffusion.builder import ProgramBuilder, sampler
from difftool.diffusion.program import MAX_ROWS, Program
from difftool.diffusion.samplers.transfer import forward, fresh_noise, transfer
from difftool.diffusion.spacing import LINSPACE, steps_or, visited
from difftool.diffusion.spec import ModelSpec
from difftool.errors import UsageError

# Lugmayr et al. 2022, section 5.1: 250 levels, and jumps of 10 of them.
_LEVELS: Final = 250
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

    The rows are DDPM's with the small variance. After every `jump` levels fresh noise takes x
    `jump` levels back, and x comes down again, until it has passed them `resamples` times. It is
    meant for `difftool.edits.inpaint`; alone it is DDPM with churn. Going back takes no evaluation:
    its noise is added to that of the row before it.

    `steps` counts network evaluations, by default as many as the paper's 250 levels take. The walk
    visits the smallest number of levels that take at least so many, and leaves out the last jumps
    if it would take more. `jump` is by default a 25th of the levels, the paper's 10 of 250.
    `difftool.diffusion.spacing.visited` lists the values of `spacing`; `clip` keeps D in the data
    range.
    """
    if steps is not None and steps > MAX_ROWS:
        raise UsageError(f"{steps} steps", f"use at most {MAX_ROWS}")
    if resamples < 1 or (jump is not None and jump < 1):
        raise UsageError(f"{resamples} resamples, jump {jump}", "use 1 or more of both")

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
    """Yield each row's level and the level that it leaves x at, counted from the most noise.

    Going back may take `extra` evaluations in all. Level `count` is the clean sample.
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
