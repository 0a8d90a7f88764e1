"""The preview against the step module that every backend runs."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from difftool.diffusion import noise
from difftool.diffusion.calls import SamplerCall
from difftool.diffusion.features import Feature
from difftool.diffusion.labels import Labels
from difftool.diffusion.samplers import annealed_langevin, compile_program
from difftool.networks.trained import load_checkpoint
from difftool.runtime.draws import Draws
from difftool.runtime.loop import run as run_rows
from difftool.train.preview import run_program
from difftool.verify.eager import Eager


@pytest.mark.parametrize(
    ("model", "sampler", "arguments", "of"),
    [
        ("tiny", "ddpm", {}, None),
        ("tiny", "ddim", {"steps": 7, "eta": 0.5}, None),
        ("tiny", "predictor_corrector", {"steps": 4, "corrector": "adaptive"}, None),
        ("classes", "ddim", {"steps": 5}, [0, 1, 2, 0, 1]),
    ],
)
def test_the_preview_is_the_program(
    model: str,
    sampler: str,
    arguments: dict[str, Any],
    of: list[int] | None,
    request: pytest.FixtureRequest,
) -> None:
    loaded = load_checkpoint(request.getfixturevalue(f"{model}_checkpoint"))
    program = compile_program(loaded.spec, SamplerCall(sampler, arguments))
    features = (Feature.NORMS,) if program.adaptive else ()
    labels = None if of is None else Labels(np.array(of))
    batch = Eager(loaded.network, loaded.spec, features).batch(program, 5, labels)
    for _ in run_rows(batch, program, Draws(0, np.arange(5), loaded.spec.shape)):
        pass
    actual = run_program(loaded.network, program, loaded.spec, 5)
    np.testing.assert_allclose(actual, batch.x, rtol=1e-4, atol=1e-4)


def test_langevin_starts_where_the_program_says(points_checkpoint: Path) -> None:
    loaded = load_checkpoint(points_checkpoint)
    program = annealed_langevin(loaded.spec, steps=5, step_size=1e-12, denoise=False)
    start = program.start.high * noise.normal(0, 0, np.arange(4), (2,))
    actual = run_program(loaded.network, program, loaded.spec, 4)
    np.testing.assert_allclose(actual, start, rtol=1e-2, atol=1e-2)
