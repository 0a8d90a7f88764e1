"""Compare a candidate on the GPU with PyTorch in float32, and its normals with numpy's."""

import copy
import math
from itertools import islice

import numpy as np
from common.candidates import Runner
from common.inside import noise, open_device, row_noise
from common.inside_torch import widest_bounds
from common.models import Setting
from common.parity import SingleSteps

from difftool.bundle import Bounds
from difftool.verify import Eager, Side
from gpu.in_torch import set_tf32

LAST_ROWS = 40  # of a run, if a whole one takes too long or proves little
FEW = 4  # samples, of which a whole run does not take too long


class Reference:
    """PyTorch's results: single steps from states of a perfect run, and a run from one.

    A few samples of a trained model take the whole program, all else its last rows. TF32 must be
    off while it runs.
    """

    def __init__(self, setting: Setting) -> None:
        self._spec, self._bundle, program = setting.spec, setting.bundle, setting.program
        set_tf32(False)
        network = copy.deepcopy(setting.checkpoint.network)
        features = setting.bundle.features
        self._backend = Eager(network, setting.spec, features, device=setting.device)
        batch = self._backend.batch(program, setting.size)
        self._steps = SingleSteps(batch, setting.spec, program, setting.size)
        whole = setting.case.trained and setting.size <= FEW
        self._first = 0 if whole else max(0, len(program) - LAST_ROWS)
        self._rows = len(program) - self._first
        self._begin = self._steps.state(self._first)
        batch.start(self._begin, row=self._first)
        for drawn in islice(row_noise(program, self._steps.draws), self._first, None):
            batch.step(drawn)
        self._end = batch.x.copy()

    def step_error(self, runner: Runner) -> float:
        """Give the largest |difference| of x over the largest |x|, after single steps."""
        runner.enter()
        return self._steps.error(runner.batch)

    def psnr(self, runner: Runner) -> float:
        """Compare the samples of a run on the device's own noise, in dB; inf if all are equal."""
        batch = runner.batch
        runner.enter()
        batch.start(self._begin, row=self._first)
        batch.advance(self._rows, self._steps.draws)
        found = batch.x.astype(np.float64)
        low, high = self._spec.data_range or (float(self._end.min()), float(self._end.max()))
        error = float(np.mean((found - self._end) ** 2))
        if not math.isfinite(error):
            return math.nan
        return math.inf if error == 0 else 10 * math.log10((high - low) ** 2 / error)

    def bounds(self, precision: str) -> Bounds:
        """Say what a precision may be off by. TF32 rounds as fp16 does, to 10 bits of mantissa."""
        named = "fp16" if precision == "tf32" else precision
        return widest_bounds(self._bundle, Side(self._backend, named))


def noise_ulps() -> float:
    """Measure the largest distance of the noise kernel's normals from numpy's, in float32 ulps."""
    device = open_device()
    samples, elements, seed, draws = np.arange(64), 3072, 7, [4, 900, 0xFFFFFFFF]
    found = device.allocate((len(samples), elements), np.float32)
    row = np.arange(len(samples)) % len(draws)
    seeds = np.full(len(samples), seed, np.uint64)
    arrays = np.int64(row), np.uint32(draws), np.uint32(samples), seeds
    buffers = []
    for array in arrays:
        buffers.append(device.allocate(array.shape, array.dtype))
        device.upload(buffers[-1], array)
    sizes = [np.int32(len(samples)), np.int32(elements), np.int32(len(draws))]
    arguments = [found, *buffers, np.uint32(noise.SAMPLING), np.float32(1), *sizes]
    device.launch("difftool_noise", arguments, len(samples) * elements // 4)
    values = np.empty(found.shape, np.float32)
    device.download(found, values)
    normals = noise.normal(seed, draws, samples, (elements,))  # of every draw and sample
    expected = normals[row, samples]
    return float((np.abs(values - expected) / np.spacing(np.abs(expected))).max())
