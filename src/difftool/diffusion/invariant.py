"""The proof of a program: with a perfect denoiser it meets its noise levels exactly."""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from difftool.diffusion.columns import Column
from difftool.diffusion.program import Program
from difftool.errors import CheckFailed

TOLERANCE: Final = 1e-12


@dataclass(frozen=True)
class Validation:
    """The largest errors of a program, relative to max(1, sigma), and the row of the worst.

    If not `exact_noise`, only the signal had to be right. Its `str` says what the errors mean.
    """

    signal_error: float
    noise_error: float
    row: int
    exact_noise: bool

    def __str__(self) -> str:
        allowed = f"; rounding may reach {TOLERANCE:.0e}"
        signal = f"error of the signal: {self.signal_error:.1e}{allowed}, so it is exact"
        noise = f"error of the noise:  {self.noise_error:.1e}"
        if self.exact_noise:
            return f"{signal}\n{noise}{allowed}, so it is exact"
        return (
            f"{signal}\n{noise}; not held to that, since this sampler adds other noise than its "
            "levels have, by design"
        )


def validate(program: Program) -> Validation:
    """Run the table on a perfect denoiser; CheckFailed if x misses a target by more than 1e-12.

    x is the vector of its coefficients on (x0, start noise, each row's noise), and D = x0. So after
    every row the first coefficient must be alpha, and the norm of the others sigma. Programs that
    are not `exact_noise` must meet alpha only; their noise error is returned. For a row of adaptive
    size, norms are taken at their expected values, which samples of many elements come close to.
    """
    errors = _errors(program)
    checked = errors.max(axis=1) if program.exact_noise else errors[:, 0]
    row = int(checked.argmax())
    signal, noise = (float(error) for error in errors.max(axis=0))
    if not checked[row] <= TOLERANCE:
        raise CheckFailed(
            f"{program.name}: row {row} misses its noise level by {checked[row]:.1e}",
            f"rounding stays under {TOLERANCE:.0e}, so the sampler's coefficients are wrong",
        )
    return Validation(signal, noise, row, program.exact_noise)


def noise_before_last(program: Program) -> float:
    """Return the noise that the last row meets, as a multiple of its sigma.

    The denoiser is perfect, and x begins with what the program's start really has: no signal, and
    the root mean square of its distribution; or given data, with the noise of the first level.
    """
    start = program.start
    x = tuple(program.targets[0])
    if start.kind == "normal":
        x = 0.0, start.high
    elif start.kind == "uniform":
        low, high = start.low, start.high
        x = 0.0, math.sqrt((low * low + low * high + high * high) / 3)
    before = _states(program, *x)[-2] if len(program) > 1 else x
    sigma = program.targets[-2][1]
    return float(before[1] / sigma) if sigma else 1.0


def _errors(program: Program) -> np.ndarray:
    """Return the (signal, noise) error after each row, float64 [R, 2]."""
    aims = program.targets[1:]
    return np.abs(_states(program, *program.targets[0]) - aims) / np.maximum(1.0, aims[:, 1:])


def _states(program: Program, signal: float, noise: float) -> np.ndarray:
    """Return the scales of signal and noise after each row, float64 [R, 2], from those before."""
    rows, drawn = len(program), 2  # the first two coefficients are on x0 and the start noise
    # Without a history every row scales all noise in x alike, and one coefficient is enough.
    apart = bool(program.table[:, Column.HISTORY :].any())
    noises = np.count_nonzero(program.table[:, Column.D]) if apart else 0
    denoised, x = np.zeros(2 + noises), np.zeros(2 + noises)
    denoised[0] = 1.0
    x[:2] = signal, noise
    history = [np.zeros_like(x)] * program.history
    states = np.empty((rows, 2))
    for index, row in enumerate(program.table):
        network = (denoised - row[Column.C_SKIP] * x) / row[Column.C_OUT]
        pushed = row[Column.E] * x + row[Column.F] * denoised
        # Add up the estimates before x. On a long step Heun's weights are millions and cancel;
        # x is small, and would lose its digits between them.
        estimates = row[Column.B] * denoised
        for weight, slot in zip(row[Column.HISTORY :], history, strict=True):
            if weight:
                estimates = estimates + weight * slot
        after = row[Column.A] * x + estimates + row[Column.G] * network
        spread = row[Column.D] * np.exp(row[Column.LOGVAR_MIN] / 2)
        if snr := row[Column.SNR] + row[Column.BATCH_SNR]:
            drift = after - x
            size = snr * spread / np.linalg.norm(drift)
            after, spread = x + size**2 * drift, size * spread
        x = after
        if not apart:
            x[1] = np.hypot(x[1], spread)
        elif row[Column.D]:
            x[drawn] = spread
            drawn += 1
        history = [pushed, *history[:-1]]
        states[index] = x[0], float(np.linalg.norm(x[1:]))
    return states
