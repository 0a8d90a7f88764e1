"""Sample grids during training: run a program row by row with the averaged weights."""

import copy
import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from difftool.diffusion import noise
from difftool.diffusion.columns import Column
from difftool.diffusion.labels import Labels, lay_out_rows
from difftool.diffusion.program import Program
from difftool.diffusion.spec import ModelSpec
from difftool.errors import UsageError
from difftool.files import write_atomic

COUNT = 16
COLUMNS = 4


class Preview:
    """A drawer of the same `COUNT` samples with ever later weights, into a run's `samples` folder.

    UsageError if the model's samples are not images.
    """

    def __init__(self, run: Path, spec: ModelSpec, program: Program) -> None:
        if len(spec.shape) != 3 or spec.data_range is None:
            raise UsageError(
                f"samples of shape {spec.shape} are not pictures", "leave run.sample_every out"
            )
        self.folder, self.spec, self.program = run / "samples", spec, program

    def draw(self, step: int, network: nn.Module, average: Mapping[str, Tensor]) -> Path:
        """Sample with the averaged weights, and return the path of the PNG."""
        averaged = copy.deepcopy(network).eval()
        averaged.load_state_dict({**network.state_dict(), **average})
        path = self.folder / f"step-{step:09d}.png"
        samples = run_program(averaged, self.program, self.spec, COUNT)
        write_atomic(path, _png(samples, self.spec))
        return path


@torch.inference_mode()
def run_program(network: nn.Module, program: Program, spec: ModelSpec, count: int) -> Tensor:
    """Return samples 0 .. count - 1 of seed 0; float32 [count, *S].

    The rows are those of `difftool.diffusion.program`. In a model with classes sample i has the
    label i modulo their number.
    """
    device = next(network.parameters()).device
    samples, shape = np.arange(count), spec.shape

    def drawn(draw: int) -> Tensor:
        return torch.from_numpy(noise.normal(0, draw, samples, shape)).to(device)

    if program.start.kind == "normal":
        x = program.start.high * drawn(0)
    else:
        unit = torch.from_numpy(noise.uniform(0, 0, samples, shape)).to(device)
        x = program.start.low + (program.start.high - program.start.low) * unit
    history = [torch.zeros_like(x)] * program.history
    cond_table, places = _conditioning(network, program, spec, count, device)
    steps = zip(program.table.tolist(), program.draws.tolist(), places, strict=True)
    for row, draw, place in steps:
        output = network(row[Column.C_IN] * x, cond_table[place])
        spread: float | Tensor = row[Column.D]
        if spec.learned_variance:
            output, v = output.chunk(2, 1)
            low, high = row[Column.LOGVAR_MIN], row[Column.LOGVAR_MAX]
            spread = spread * torch.exp(0.5 * (low + (v + 1) / 2 * (high - low)))
        denoised = row[Column.C_SKIP] * x + row[Column.C_OUT] * output
        denoised = denoised.clamp(row[Column.CLIP_LOW], row[Column.CLIP_HIGH])
        pushed = row[Column.E] * x + row[Column.F] * denoised
        x = row[Column.A] * x + row[Column.B] * denoised + row[Column.G] * output
        for weight, earlier in zip(row[Column.HISTORY :], history, strict=True):
            x = x + weight * earlier
        if row[Column.D]:
            x = x + spread * drawn(draw)
        history = [pushed, *history[:-1]]
    return x


def _conditioning(
    network: nn.Module, program: Program, spec: ModelSpec, count: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return the conditioner's output [U, C], and the row of it for each row and sample [R, N]."""
    labels = Labels(np.arange(count) % spec.classes) if spec.classes else None
    rows = lay_out_rows(program, spec, count, labels)
    known = [torch.tensor(rows.conds, dtype=torch.float32, device=device)]
    if rows.labels is not None:
        known.append(torch.from_numpy(rows.labels).to(device))
    places = rows.table[np.arange(len(program))[:, None] + rows.first, Column.COND]
    table: Tensor = network.condition(*known)  # type: ignore[operator]
    return table, torch.from_numpy(places.astype(np.int64)).to(device)


def _png(samples: Tensor, spec: ModelSpec) -> bytes:
    """Write samples [N, C, H, W] on one sheet, `COLUMNS` to a row, as PNG."""
    low, high = spec.data_range or (0.0, 1.0)
    pixels = ((samples - low) * (255 / (high - low))).round().clamp(0, 255).byte().cpu().numpy()
    framed = np.pad(pixels, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=255)
    channels, height, width = framed.shape[1:]
    sheet: NDArray[np.uint8] = framed.reshape(-1, COLUMNS, channels, height, width)
    sheet = sheet.transpose(0, 3, 1, 4, 2).reshape(-1, COLUMNS * width, channels)
    file = io.BytesIO()
    Image.fromarray(sheet.squeeze(-1) if channels == 1 else sheet).save(file, "PNG")
    return file.getvalue()
