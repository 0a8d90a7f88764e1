"""A sampler of your own on a shipped model, which is not exported again for it.

python examples/own_sampler.py grid.png

The sampler is DPM-Solver++(2S) (Lu et al. 2022, algorithm 1 with r = 1/2), which difftool does not
have. A row is one network evaluation: the program is proved before it runs, and can be printed and
saved like those of `difftool.samplers`.
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

import difftool
from difftool.diffusion import transitions, validate, visited
from difftool.runtime import grid


@difftool.sampler
def dpmpp_2s(spec: difftool.ModelSpec, *, levels: int = 10, clip: bool = True) -> difftool.Program:
    """Each step goes to the next level by the D of its middle, with 2 * levels - 1 evaluations."""
    builder = difftool.ProgramBuilder(spec, clip=clip)
    for level, target in transitions(visited(spec.schedule, levels, "half_log_snr")):
        if target is None:  # the clean sample is D
            builder.row(level, None, a=0.0, b=1.0)
            continue
        middle = find_middle(spec, level, target)
        half, whole = exact_step(builder, level, middle), exact_step(builder, level, target)
        builder.row(level, middle, a=half[0], b=half[1], push=(0.0, 1.0))  # D into the history
        # x at the middle is half[0] * x + half[1] * D: undo it, and take the whole step.
        back = whole[0] / half[0]
        builder.row(middle, target, a=back, b=whole[1], c=[-back * half[1]])
    return builder.build()


def find_middle(spec: difftool.ModelSpec, level: float, target: float) -> float:
    """The schedule index half way between two in half_log_snr; most often not a whole one."""
    alpha, sigma = spec.schedule.at([level, target])
    return float(spec.schedule.find(np.log(alpha / sigma).mean()))


def exact_step(
    builder: difftool.ProgramBuilder, level: float, target: float
) -> tuple[float, float]:
    """(a, b) that carry x = alpha * D + sigma * epsilon to the target's alpha and sigma."""
    (alpha, sigma), (alpha_next, sigma_next) = builder.level(level), builder.level(target)
    a = sigma_next / sigma
    return a, alpha_next - a * alpha


def main(out: Path) -> None:
    """Sixteen digits by 19 evaluations each."""
    model = difftool.load("ddpm-mnist")
    program = dpmpp_2s(model.spec)
    print(program)
    print(validate(program))
    samples = model.sample(program, n=16, seed=0)
    Image.fromarray(grid(difftool.to_uint8(samples, model.spec)).squeeze()).save(out)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "grid.png"))
