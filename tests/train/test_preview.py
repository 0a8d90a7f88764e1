"""The preview against the step module that every backend runs."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from difftool.diffusion import noise
from difftool.diffusion.calls import SamplerCall
from difftool.diffusion.features import Feature
from difftool.diffusion.labels import Labels
from difftool.diffusion.samplers import annealed_langevin, compile_program
from difftool.diffusion.schedules import geometric, linear
from difftool.diffusion.spec import ModelSpec
from difftool.networks.trained import load_checkpoint
from difftool.runtime.draws import Draws
from difftool.runtime.loop import run as run_rows
from difftool.train.preview import EVALUATIONS, cheap_program, run_program
from difftool.verify.eager import Eager
from tests.fixtures import IMAGE_SPEC

NCSN_SPEC = ModelSpec(
    shape=(1, 8, 8),
    schedule=geometric(levels=10, sigma_min=0.01, sigma_max=1.0),
    parameterization="score",
    cond="level",
    data_range=(0.0, 1.0),
)


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


@pytest.mark.parametrize(
    ("spec", "own", "expected"),
    [
        (replace(IMAGE_SPEC, schedule=linear()), SamplerCall("ddpm"), ("dpmpp_2m", 20)),
        (IMAGE_SPEC, SamplerCall("ddpm"), ("ddpm", 20)),
        (
            replace(IMAGE_SPEC, schedule=linear()),
            SamplerCall("consistency", {"steps": 4}),
            ("consistency", 4),
        ),
        (NCSN_SPEC, SamplerCall("annealed_langevin", {"steps": 1000}), ("dpmpp_2m", 10)),
        (
            NCSN_SPEC,
            SamplerCall("annealed_langevin", {"steps": 10, "start": "data()", "denoise": False}),
            ("dpmpp_2m", 10),
        ),
    ],
)
def test_a_preview_takes_few_evaluations_of_a_sampler_that_suits(
    spec: ModelSpec, own: SamplerCall, expected: tuple[str, int]
) -> None:
    """The model's own if it is short; it needs no data to start from, and no level in between."""
    program = cheap_program(spec, own)
    assert (program.call.name, len(program)) == expected
    assert len(program) <= EVALUATIONS


def test_langevin_starts_where_the_program_says(points_checkpoint: Path) -> None:
    loaded = load_checkpoint(points_checkpoint)
    program = annealed_langevin(loaded.spec, steps=5, step_size=1e-12, denoise=False)
    start = program.start.high * noise.normal(0, 0, np.arange(4), (2,))
    actual = run_program(loaded.network, program, loaded.spec, 4)
    np.testing.assert_allclose(actual, start, rtol=1e-2, atol=1e-2)
