"""The proof of a program: with a perfect denoiser it meets its noise levels exactly."""

from dataclasses import dataclass
from typing import Final

import numpy as np

from difftool.diffusion.columns import Column
from difftool.diffusion.program import Program
from difftool.errors import CheckFailed

TOLERANCE: Final = 1e-12


@dataclass(frozen=True)
class Validation:
    """The largest errors of a program, relative to max(1, sigma), and the row of the worst."""

    signal_error: float
    noise_error: float
    row: int


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
    return Validation(signal, noise, row)


def _errors(program: Program) -> np.ndarray:
    """Return the (signal, noise) error after each row, float64 [R, 2]."""
    rows, drawn = len(program), 2  # the first two coefficients are on x0 and the start noise
    # Without a history every row scales all noise in x alike, and one coefficient is enough.
    apart = bool(program.table[:, Column.HISTORY :].any())
    noises = np.count_nonzero(program.table[:, Column.D]) if apart else 0
    denoised, x = np.zeros(2 + noises), np.zeros(2 + noises)
    denoised[0] = 1.0
    x[:2] = program.targets[0]
    history = [np.zeros_like(x)] * program.history
    errors = np.empty((rows, 2))
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
        alpha, sigma = program.targets[index + 1]
        errors[index] = abs(x[0] - alpha), abs(float(np.linalg.norm(x[1:])) - sigma)
        errors[index] /= max(1.0, sigma)
    return errors
