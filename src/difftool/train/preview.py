"""Sample grids during training: run a program with the averaged weights."""

import copy
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from difftool.diffusion.labels import Labels
from difftool.diffusion.program import Program
from difftool.diffusion.spec import ModelSpec
from difftool.errors import UsageError
from difftool.files import write_atomic
from difftool.networks import raw_output
from difftool.runtime.backends.reference import Reference
from difftool.runtime.draws import Draws, row_noise, start_noise
from difftool.runtime.images import grid, is_image, to_uint8

COUNT = 16


class Preview:
    """A drawer of the same `COUNT` samples with ever later weights, into a run's `samples` folder.

    UsageError if the model's samples are not images, or the program starts from data.
    """

    def __init__(self, run: Path, spec: ModelSpec, program: Program) -> None:
        if not is_image(spec):
            raise UsageError(
                f"samples of shape {spec.shape} are not pictures", "leave run.sample_every out"
            )
        if program.start.kind == "data":
            raise UsageError(
                "a sample grid has no data to start from",
                "leave run.sample_every out, or choose another start of the sampler",
            )
        self.folder, self.spec, self.program = run / "samples", spec, program

    def draw(self, step: int, network: nn.Module, average: Mapping[str, Tensor]) -> None:
        """Sample with the averaged weights, and write a PNG."""
        averaged = copy.deepcopy(network).eval()
        averaged.load_state_dict({**network.state_dict(), **average})
        pixels = to_uint8(run_program(averaged, self.program, self.spec, COUNT), self.spec)
        framed = np.pad(pixels, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=255)
        sheet = grid(framed, padding=0)
        file = io.BytesIO()
        Image.fromarray(sheet.squeeze(-1) if sheet.shape[-1] == 1 else sheet).save(file, "PNG")
        write_atomic(self.folder / f"step-{step:09d}.png", file.getvalue())


@torch.inference_mode()
def run_program(
    network: nn.Module, program: Program, spec: ModelSpec, count: int
) -> NDArray[np.float32]:
    """Return samples 0 .. count - 1 of seed 0; [count, *S].

    In a model with classes sample i has the label i modulo their number.
    """
    device = next(network.parameters()).device

    def evaluate(x: NDArray[Any], cond: NDArray[Any], *label: NDArray[np.int64]) -> NDArray[Any]:
        inputs = (x.astype(np.float32), cond.astype(np.float32), *label)
        tensors = [torch.from_numpy(each).to(device) for each in inputs]
        return raw_output(network, *tensors).cpu().numpy()

    labels = Labels(np.arange(count) % spec.classes) if spec.classes else None
    reference = Reference(evaluate, spec.shape, learned_variance=spec.learned_variance)
    batch, draws = reference.batch(program, count, labels), Draws(0, np.arange(count), spec.shape)
    batch.start(start_noise(program, draws))
    for drawn in row_noise(program, draws):
        batch.step(drawn)
    return batch.x.astype(np.float32)
