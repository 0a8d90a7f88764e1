"""One batch through a model that was just read, before anything is written."""

from dataclasses import replace

import numpy as np
import torch

from difftool.diffusion import noise
from difftool.diffusion.samplers import compile_program
from difftool.errors import ArtefactError, first_line
from difftool.train.importers.format import Imported
from difftool.train.networks import build_network


@torch.no_grad()
def check(imported: Imported) -> Imported:
    """Run the network at the least and the most noise, and compile the default program.

    Returns the same with `largest_outputs`.

    Raises:
        ArtefactError: the network cannot take the samples of its spec, or gives back another
            shape, or numbers that are not finite.
        UsageError: the program does not suit the spec.
    """
    spec = imported.spec
    compile_program(spec, imported.program["sampler"], imported.program["arguments"])
    network = build_network(imported.network["kind"], imported.network["arguments"])
    network.load_state_dict(dict(imported.tensors))
    network.eval()
    levels = np.array([0, len(spec.schedule) - 1])
    inputs = [torch.from_numpy(spec.cond_of(levels)).float()]
    if spec.classes:
        inputs.append(torch.zeros(2, dtype=torch.int64))
    _, sigma = spec.schedule.at(levels)
    scale = torch.from_numpy(spec.coefficients_of(levels).c_in * sigma).float()
    x = torch.from_numpy(noise.normal(0, 0, np.arange(2), spec.shape))
    x *= scale.reshape(-1, *[1] * len(spec.shape))
    channels, *size = spec.shape
    expected = (2, channels * (1 + spec.learned_variance), *size)
    try:
        output = network(x, network.condition(*inputs))  # type: ignore[operator]
    except RuntimeError as error:
        raise ArtefactError(
            f"the network cannot take samples of {spec.shape}: {first_line(error)}",
            "is the image size right?",
        ) from error
    if tuple(output.shape) != expected or not bool(output.isfinite().all()):
        raise ArtefactError(
            f"the network's output on noise, {list(output.shape)}, is of another shape than "
            f"{list(expected)} or not finite",
            "are the settings right, and is the file whole?",
        )
    # In few digits: the last ones depend on how many threads share a sum.
    least, most = (float(f"{value:.3g}") for value in output.abs().flatten(1).amax(1).tolist())
    return replace(imported, largest_outputs=(least, most))
