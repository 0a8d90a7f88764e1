"""The preview's loop against the step module that every backend runs."""

from pathlib import Path

import numpy as np
import pytest
import torch

from difftool.diffusion import noise
from difftool.diffusion.calls import SamplerCall
from difftool.diffusion.labels import Labels
from difftool.diffusion.samplers import annealed_langevin, compile_program
from difftool.networks.trained import load_checkpoint
from difftool.runtime.draws import Draws
from difftool.runtime.loop import run as run_rows
from difftool.train.preview import run_program
from difftool.verify.eager import Eager


@pytest.mark.parametrize(
    ("sampler", "arguments"), [("ddpm", {}), ("ddim", {"steps": 7, "eta": 0.5})]
)
def test_the_preview_is_the_program(
    tiny_checkpoint: Path, sampler: str, arguments: dict[str, object]
) -> None:
    compare(tiny_checkpoint, SamplerCall(sampler, arguments), 3)


def test_the_preview_goes_through_the_classes(classes_checkpoint: Path) -> None:
    labels = Labels(np.array([0, 1, 2, 0, 1]))
    compare(classes_checkpoint, SamplerCall("ddim", {"steps": 5}), 5, labels)


def compare(checkpoint: Path, call: SamplerCall, count: int, labels: Labels | None = None) -> None:
    """The preview's samples are those of the step module."""
    loaded = load_checkpoint(checkpoint)
    program = compile_program(loaded.spec, call)
    batch = Eager(loaded.network, loaded.spec).batch(program, count, labels)
    for _ in run_rows(batch, program, Draws(0, np.arange(count), loaded.spec.shape)):
        pass
    actual = run_program(loaded.network, program, loaded.spec, count)
    torch.testing.assert_close(actual, torch.from_numpy(batch.x), rtol=1e-4, atol=1e-4)


def test_langevin_starts_where_the_program_says(points_checkpoint: Path) -> None:
    loaded = load_checkpoint(points_checkpoint)
    arguments = {"steps": 5, "step_size": 1e-12, "denoise": False}
    program = annealed_langevin(loaded.spec, **arguments)
    start = program.start.high * noise.normal(0, 0, np.arange(4), (2,))
    actual = run_program(loaded.network, program, loaded.spec, 4)
    torch.testing.assert_close(actual, torch.from_numpy(start), rtol=1e-2, atol=1e-2)
