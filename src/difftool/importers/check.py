"""Check a model that was just read with one batch, before anything is written."""

import math
from dataclasses import replace
from typing import Final

import numpy as np
import torch

from difftool.diffusion import noise
from difftool.diffusion.samplers import compile_program
from difftool.errors import ArtefactError, ResourceError, UsageError, first_line, is_out_of_memory
from difftool.importers.format import Imported
from difftool.networks import MISFITS, build_network

MOST_NUMBERS: Final = 1 << 24  # in one sample: 2364 x 2364 pixels in colour
_SIZE_HINT: Final = "check the image size"


@torch.no_grad()
def check(imported: Imported) -> Imported:
    """Run the network at the least and the most noise, and compile the default program.

    Return the model with its `largest_outputs`.

    Raises:
        ArtefactError: the network cannot take the samples of its spec, or its output has another
            shape or is not finite.
        UsageError: the program does not suit the spec, or its samples are too large.
        ResourceError: memory is too small for two samples.
    """
    spec = imported.spec
    if math.prod(spec.shape) > MOST_NUMBERS:
        raise UsageError(f"samples of {spec.shape} are too large", _SIZE_HINT)
    compile_program(spec, imported.sampler)
    network = build_network(imported.network)
    network.load_state_dict(dict(imported.tensors))
    network.eval()
    levels = np.array([0, len(spec.schedule) - 1])
    inputs = [torch.from_numpy(spec.conds(levels)).float()]
    if spec.classes:
        inputs.append(torch.zeros(2, dtype=torch.int64))
    _, sigma = spec.schedule.at(levels)
    scale = torch.from_numpy(spec.coefficients(levels).c_in * sigma).float()
    x = torch.from_numpy(noise.normal(0, 0, np.arange(2), spec.shape))
    x *= scale.reshape(-1, *[1] * len(spec.shape))
    channels, *size = spec.shape
    expected = (2, channels * (1 + spec.learned_variance), *size)
    try:
        output = network(x, network.condition(*inputs))  # type: ignore[operator]
    except MISFITS as error:
        if is_out_of_memory(error):
            raise ResourceError(f"no memory for two samples of {spec.shape}", _SIZE_HINT) from error
        raise ArtefactError(
            f"the network cannot take samples of {spec.shape}: {first_line(error)}", _SIZE_HINT
        ) from error
    if tuple(output.shape) != expected or not bool(output.isfinite().all()):
        raise ArtefactError(
            f"the network's output on noise, {list(output.shape)}, is of another shape than "
            f"{list(expected)} or not finite",
            "check the settings, and that the file is whole",
        )
    # Rounded to few digits, since the last ones depend on the number of threads that share a sum.
    least, most = (float(f"{value:.3g}") for value in output.abs().flatten(1).amax(1).tolist())
    return replace(imported, largest_outputs=(least, most))
