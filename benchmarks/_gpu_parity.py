"""Whether a side on the GPU computes what PyTorch computes in float32, and numpy's normals."""

import math

import numpy as np
from _gpu_models import Setting
from _gpu_timing import Runner
from _gpu_torch import exact, set_tf32

from difftool.bundle import Bounds
from difftool.diffusion import noise
from difftool.diffusion.columns import Column
from difftool.diffusion.program import Program
from difftool.export.sides import Side, bounds_of
from difftool.runtime.cuda.cuda_device import open_device
from difftool.runtime.draws import Draws
from difftool.runtime.protocols import Batch

ROWS = 8  # that single steps are taken of
LAST_ROWS = 40  # of a run where a whole one takes too long, or proves little

Floats = np.ndarray


class Teacher:
    """What PyTorch computes: single steps from states of a perfect run, and a run from one.

    One sample of a trained model takes the whole program, all else its last rows.
    """

    def __init__(self, setting: Setting) -> None:
        self._spec, self._program = setting.spec, setting.program
        self._draws = Draws(1, np.arange(setting.size), setting.spec.shape)
        set_tf32(False)
        self._bundle, self._backend = setting.bundle, exact(setting)
        batch = self._backend.batch(self._program, setting.size)
        rows = np.unique(np.linspace(0, len(self._program) - 1, ROWS).astype(int))
        self._steps = []
        for row in rows:
            x, drawn = self._state(int(row)), self._draws.normal(int(row) + 1)
            self._steps.append((int(row), x, drawn, _step(batch, x, int(row), drawn)))
        whole = setting.case.trained and setting.size == 1
        self._first = 0 if whole else max(0, len(self._program) - LAST_ROWS)
        self._begin = self._state(self._first)
        batch.start(self._begin, row=self._first)
        for row in range(self._first, len(self._program)):
            batch.step(_row_noise(self._program, self._draws, row))
        self._end = batch.x.copy()

    def step_error(self, runner: Runner) -> float:
        """The largest |difference| of x over the largest |x|, after single steps. NaN stays."""
        runner.enter()
        errors = []
        for row, x, drawn, expected in self._steps:
            found = _step(runner.batch, x, row, drawn).astype(np.float64)
            errors.append(float(np.abs(found - expected).max() / np.abs(expected).max()))
        return float(np.max(errors))

    def psnr(self, runner: Runner) -> float:
        """In dB, of the samples of a run on noise of the device's own; inf where they are equal."""
        batch = runner.batch
        runner.enter()
        batch.start(self._begin, row=self._first)
        batch.advance(len(self._program) - self._first, self._draws)
        found = batch.x.astype(np.float64)
        low, high = self._spec.data_range or (float(self._end.min()), float(self._end.max()))
        error = float(np.mean((found - self._end) ** 2))
        if not math.isfinite(error):
            return math.nan
        return math.inf if error == 0 else 10 * math.log10((high - low) ** 2 / error)

    def bounds(self, precision: str) -> Bounds:
        """What a precision may be off by. TF32 rounds as fp16 does, to 10 bits of mantissa."""
        named = "fp16" if precision == "tf32" else precision
        return bounds_of(self._bundle, Side(self._backend, named))

    def _state(self, row: int) -> Floats:
        """Random data under the noise of a row, float32 [N, *S]."""
        generator = np.random.default_rng(row)
        low, high = self._spec.data_range or (-1.0, 1.0)
        alpha, sigma = self._program.targets[row]
        shape = (self._draws.count, *self._draws.shape)
        x = alpha * generator.uniform(low, high, shape) + sigma * generator.standard_normal(shape)
        return x.astype(np.float32)


def noise_ulps() -> float:
    """The largest distance of the noise kernel's normals from numpy's, in float32 ulps."""
    device = open_device()
    samples, elements, seed, draws = np.arange(64), 3072, 7, [4, 900, 0xFFFFFFFF]
    found = device.allocate((len(samples), elements), np.float32)
    row = np.arange(len(samples)) % len(draws)
    arrays = [
        row.astype(np.int64),
        np.array(draws, np.uint32),
        samples.astype(np.uint32),
        np.array([seed], np.uint64),
    ]
    buffers = []
    for array in arrays:
        buffers.append(device.allocate(array.shape, array.dtype))
        device.upload(buffers[-1], array)
    sizes = [np.int32(len(samples)), np.int32(elements), np.int32(len(draws))]
    arguments = [found, *buffers, np.uint32(noise.SAMPLING), *sizes]
    device.launch("difftool_noise", arguments, len(samples) * elements // 4)
    values = np.empty(found.shape, np.float32)
    device.download(found, values)
    expected = np.stack(
        [
            noise.normal(seed, draws[at], [sample], (elements,))[0]
            for at, sample in zip(row, samples, strict=True)
        ]
    )
    return float((np.abs(values - expected) / np.spacing(np.abs(expected))).max())


def _step(batch: Batch, x: Floats, row: int, drawn: Floats) -> Floats:
    batch.start(x, row=row)
    batch.step(drawn)
    return np.array(batch.x, np.float32)


def _row_noise(program: Program, draws: Draws, row: int) -> Floats | None:
    if program.table[row, Column.D] == 0:
        return None
    return draws.normal(program.draws[row])
