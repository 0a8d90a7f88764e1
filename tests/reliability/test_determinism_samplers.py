"""D2 of every sampler: a part of a run is that of the whole, bit for bit, or is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from difftool.bundle import Bundle, read_bundle
from difftool.diffusion.calls import SamplerCall
from difftool.diffusion.features import Feature
from difftool.diffusion.samplers import SAMPLERS, compile_program, predictor_corrector
from difftool.diffusion.samplers.score_sde import CORRECTORS
from difftool.errors import UsageError
from difftool.runtime.model import Model
from tests import fixtures
from tests.reliability.backends import opened

BATCH, ALL = 4, 11
PARTS = ((0, 11), (0, 1), (3, 2), (2, 7), (4, 4), (10, 1))  # the first sample, and how many
# Few rows; each sampler has its own rule for how many there may be.
FEW: dict[str, dict[str, Any]] = {name: {"steps": 6} for name in SAMPLERS}
FEW["annealed_langevin"] = {"steps": 20}
CASES = [
    *((name, arguments) for name, arguments in FEW.items()),
    *(("predictor_corrector", {"steps": 6, "corrector": corrector}) for corrector in CORRECTORS),
    *(("ddpm", {"steps": 6, "variance": variance}) for variance in ("small", "large")),
    *((name, {"steps": 6, "eta": 1.0}) for name in ("ddim", "euler_ancestral", "dpmpp_2m_sde")),
]
COUPLED = "reference"


@pytest.fixture(scope="module", params=["labels", "no labels"])
def model(
    request: pytest.FixtureRequest,
    classes_checkpoint: Path,
    featured_bundle: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Model:
    """A model whose step graph computes norms."""
    path = featured_bundle
    if request.param == "labels":
        out = tmp_path_factory.mktemp("labelled") / "bundle"
        path = fixtures.export_model(classes_checkpoint, out, (Feature.NORMS, Feature.GUIDANCE))
    bundle: Bundle = read_bundle(path)
    return Model(bundle, opened(bundle, "onnxruntime-cpu"), max_batch=BATCH)


def drawn(model: Model, sampler: str, arguments: dict[str, Any], first: int, n: int) -> Any:
    program = compile_program(model.spec, SamplerCall(sampler, arguments))
    scale = 2.0 if model.spec.classes else 1.0
    return model.sample(
        program, n=n, seed=5, first_sample=first, guidance_scale=scale, deterministic=True
    )


@pytest.mark.criterion("D2")
@pytest.mark.parametrize(
    ("sampler", "arguments"), [case for case in CASES if COUPLED not in case[1].values()]
)
def test_parts_of_a_run(sampler: str, arguments: dict[str, Any], model: Model) -> None:
    whole = drawn(model, sampler, arguments, 0, ALL)
    for first, n in PARTS:
        part = drawn(model, sampler, arguments, first, n)
        assert np.array_equal(part, whole[first : first + n]), f"samples {first}, {n} of them"


@pytest.mark.criterion("D2")
def test_samples_that_move_each_other_are_refused(model: Model) -> None:
    arguments = {"steps": 6, "corrector": COUPLED}
    with pytest.raises(UsageError, match="a sample depends on its neighbours") as caught:
        drawn(model, "predictor_corrector", arguments, 0, 3)
    assert "corrector" in caught.value.hint
    program = predictor_corrector(model.spec, **arguments)
    with pytest.raises(UsageError, match="a sample depends on its neighbours"):
        model.stream(program, n=3, deterministic=True)
    assert model.sample(program, n=3).shape == (3, 1, 8, 8)
