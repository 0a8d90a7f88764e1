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

from difftool.diffusion.calls import SamplerCall
from difftool.diffusion.labels import Labels
from difftool.diffusion.program import Program
from difftool.diffusion.samplers import compile_program
from difftool.diffusion.spec import ModelSpec
from difftool.errors import UsageError
from difftool.files import write_atomic
from difftool.networks import raw_output
from difftool.runtime.backends.reference import Reference
from difftool.runtime.draws import Draws, row_noise, start_noise
from difftool.runtime.images import grid, is_image, to_uint8
from difftool.train.trackers import Pixels

COUNT = 16
EVALUATIONS = 20  # of the network for each sample, at most


def cheap_program(spec: ModelSpec, own: SamplerCall) -> Program:
    """Return a program of about 20 evaluations for a model whose default program is `own`.

    A program that is as short as that is taken as it is: a distilled model has one, and suits no
    other. Otherwise it is `dpmpp_2m`, with one evaluation for each noise level if these are fewer.
    """
    default = compile_program(spec, own)
    if len(default) <= EVALUATIONS and default.start.kind != "data":
        return default
    steps = min(EVALUATIONS, len(spec.schedule))
    return compile_program(spec, SamplerCall("dpmpp_2m", {"steps": steps}))


class Preview:
    """A drawer of the same `COUNT` samples with ever later weights, into a run's `samples` folder.

    `sampler` is the call of the model's default program. UsageError if the samples are not images.
    """

    def __init__(self, run: Path, spec: ModelSpec, sampler: SamplerCall) -> None:
        if not is_image(spec):
            raise UsageError(
                f"samples of shape {spec.shape} are not pictures", "leave run.sample_every out"
            )
        self.folder, self.spec = run / "samples", spec
        self.program = cheap_program(spec, sampler)

    def draw(self, step: int, network: nn.Module, average: Mapping[str, Tensor]) -> Pixels:
        """Sample with the averaged weights, write a PNG, and return it as uint8 [H, W, C]."""
        averaged = copy.deepcopy(network).eval()
        averaged.load_state_dict({**network.state_dict(), **average})
        pixels = to_uint8(run_program(averaged, self.program, self.spec, COUNT), self.spec)
        framed = np.pad(pixels, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=255)
        sheet = grid(framed, padding=0)
        file = io.BytesIO()
        Image.fromarray(sheet.squeeze(-1) if sheet.shape[-1] == 1 else sheet).save(file, "PNG")
        write_atomic(self.folder / f"step-{step:09d}.png", file.getvalue())
        return sheet


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
