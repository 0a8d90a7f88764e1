"""What is doubtful about a program before it runs: rules on its table and on the model's levels.

A bundle is measured with its own program, so each rule compares a program with that one, and none
has a caveat about it. The rules look at numbers alone: they know no model and no sampler by name.
"""

import math
from typing import Final

from difftool.diffusion.invariant import noise_before_last
from difftool.diffusion.program import Program
from difftool.diffusion.spec import ModelSpec

_EXCESS: Final = 3.0  # noise at the last row, as a multiple of the default program's
# The least sigma of a start, as a share of the greatest distance that two samples can have.
_DROWNED: Final = 0.1
_DIVISOR: Final = math.e  # by which an evaluation may divide sigma / alpha, on average
_ROUNDING: Final = 1 + 1e-9


def caveats(program: Program, spec: ModelSpec, default: Program) -> tuple[str, ...]:
    """Return why samples of a program may be poor, a sentence each; none if nothing is known.

    `spec` is the model's, or what `ModelSpec.up_to` has left of it, and `default` is the program
    that the model was measured with.

    - Each evaluation divides the noise by more than e, and by more than in `default`.
    - Levels get fewer rows than in `default`, and only many rows meet their noise (Langevin
      dynamics; Song and Ermon 2019, section 4).
    - The start has so little noise that data would be visible in it (Song and Ermon 2020, technique
      1), and the program does not stay on its levels to forget the start.
    - A perfect denoiser leaves three times as much noise before the last row as in `default`.
    """
    first = _too_few(program, spec, default)
    # One cause is enough: a program that is too short on its levels also fails the other two rules.
    second = (
        _too_short(program, default)
        or _not_drowned(program, spec, default)
        or _too_noisy(program, default)
    )
    return tuple(said for said in (first, second) if said)


def _too_few(program: Program, spec: ModelSpec, default: Program) -> str:
    divisor = _divided(program, spec)
    if divisor <= max(_DIVISOR, _divided(default, spec) * _ROUNDING):
        return ""
    enough = math.ceil(math.log(divisor) * len(program))
    return (
        f"with so few steps, {len(program)}, each divides the noise by {divisor:.1f}; "
        f"take {enough} or more"
    )


def _too_short(program: Program, default: Program) -> str:
    given, measured = _rows_of_a_level(program), _rows_of_a_level(default)
    if program.exact_noise or default.exact_noise or given >= measured:
        return ""
    return (
        f"it takes {given} steps at each noise level, and the model was measured with {measured}: "
        f"samples may stay noise; its own program is {default.name}"
    )


def _not_drowned(program: Program, spec: ModelSpec, default: Program) -> str:
    if program.start.kind == "data" or spec.data_range is None:
        return ""
    low, high = spec.data_range
    farthest = (high - low) * math.sqrt(math.prod(spec.shape))
    start, measured = _noise(program, 0), _noise(default, 0)
    stays = not program.exact_noise and _rows_of_a_level(program) >= _rows_of_a_level(default)
    if start >= _DROWNED * farthest or (stays and start * _ROUNDING >= measured):
        return ""
    return (
        f"it starts from noise of sigma {start:.3g}, under which data of this model are still "
        f"visible, and so in the wrong place; its own program is {default.name}"
    )


def _too_noisy(program: Program, default: Program) -> str:
    if program.exact_noise:
        return ""
    excess, measured = noise_before_last(program), noise_before_last(default)
    if excess <= _EXCESS * max(1.0, measured):
        return ""
    return (
        f"at its last step the network meets {excess:.1f} times the noise that it was trained for "
        f"there ({measured:.1f} in the model's own program); take more steps, or a sampler that "
        "meets its noise levels, such as ddim"
    )


def _divided(program: Program, spec: ModelSpec) -> float:
    """Return by how much an evaluation divides sigma / alpha, on average, down to the least one."""
    least = float(spec.schedule.sigma[0] / spec.schedule.alpha[0])
    return float(max(1.0, _noise(program, 0) / least) ** (1 / len(program)))


def _rows_of_a_level(program: Program) -> int:
    return len(program) // len(program.conds)


def _noise(program: Program, row: int) -> float:
    """Return sigma / alpha of x before a row."""
    alpha, sigma = program.targets[row]
    return float(sigma / alpha)
