"""`Model.submit` draws what `Model.sample` draws, whatever is asked for."""

import gc
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

import difftool
from difftool.bundle import read_bundle
from difftool.diffusion.samplers import ddim, ddpm, predictor_corrector, unipc
from difftool.errors import CheckFailed, UsageError
from difftool.runtime import Model, Reference, Request, SchedulerSettings, edits

SOON = 120  # seconds, for what needs a moment


def alike(model: Model, asked: Mapping[str, object]) -> None:
    """Submit a request beside two others, and compare it with samples drawn alone."""
    request = Request(**asked)  # type: ignore[arg-type]
    others = [model.submit(Request(ddim(model.spec, steps=k), n=2, seed=k)) for k in (3, 5)]
    found = model.submit(request).result(SOON)
    alone = Model(model.bundle, model.backend, max_batch=1)
    assert found.tobytes() == alone.sample(**asked).tobytes()  # type: ignore[arg-type]
    for ticket in others:
        assert np.isfinite(ticket.result(SOON)).all()


@pytest.fixture(scope="module")
def featured(featured_bundle: Path) -> Model:
    return difftool.load(featured_bundle, max_batch=4, threads=1)


@pytest.fixture(scope="module")
def classes(classes_bundle: Path) -> Model:
    return difftool.load(classes_bundle, max_batch=4, threads=1)


def test_every_argument_of_images(featured: Model) -> None:
    spec, random = featured.spec, np.random.default_rng(0)
    picture = random.uniform(-1, 1, (3, *spec.shape)).astype(np.float32)
    mask = (random.random(spec.shape) < 0.5).astype(np.float32)
    adaptive = predictor_corrector(spec, steps=4, corrector="adaptive")
    alike(featured, {"n": 6, "seed": 5})
    alike(featured, {"program": unipc(spec, steps=5), "n": 2, "first_sample": 1000})
    alike(featured, {"program": ddpm(spec, steps=5), "n": 5, "between": (3, 8)})
    alike(featured, {"program": adaptive, "n": 3, "seed": 2**64 - 1})
    alike(featured, {"n": 3, "edit": edits.inpaint(picture, mask)})
    alike(featured, {"n": 2, "edit": edits.inpaint(0 * picture[0], mask)})
    alike(featured, {"program": ddim(spec.up_to(0.5), steps=4), "n": 3, "init": picture})


def test_labels_and_guidance(classes: Model) -> None:
    alike(classes, {"n": 5, "labels": [2, 0, 3, 1, 2], "guidance_scale": 3.0})
    alike(classes, {"n": 4, "first_sample": 2})


def test_points(points_bundle: Path) -> None:
    alike(difftool.load(points_bundle, max_batch=8, threads=1), {"n": 5, "seed": 1})


def test_what_shares_no_steps(tiny_bundle: Path, featured: Model) -> None:
    plain = difftool.load(tiny_bundle, threads=1)
    inpaint = edits.inpaint(np.zeros((1, 8, 8)), np.ones((1, 8, 8)))
    with pytest.raises(UsageError, match="step graph has no known"):
        plain.submit(Request(n=1, edit=inpaint))
    adaptive = predictor_corrector(plain.spec, steps=2, corrector="adaptive")
    with pytest.raises(UsageError, match="step graph has no norms"):
        plain.submit(Request(adaptive, n=1))
    with pytest.raises(UsageError, match="raw network"):
        featured.submit(Request(ddim(featured.spec, steps=2, raw_epsilon=True), edit=inpaint))
    with pytest.raises(UsageError, match="no class labels"):
        plain.submit(Request(labels=0))
    bundle = read_bundle(tiny_bundle)
    with pytest.raises(UsageError, match="reference shares no steps"):
        Model(bundle, Reference(lambda x, cond: x, (1, 8, 8))).submit(Request(n=1))


def test_the_settings_are_those_of_the_first_call(tiny_bundle: Path) -> None:
    model = difftool.load(tiny_bundle, threads=1)
    settings = SchedulerSettings(batching="request", queue=2)
    running = model.scheduler(settings)
    assert model.scheduler() is model.scheduler(settings) is running
    with pytest.raises(UsageError, match="the scheduler runs with"):
        model.scheduler(SchedulerSettings())
    assert running.healthy(SOON)
    assert running.close(timeout=SOON)
    with pytest.raises(UsageError, match="closed"):
        model.submit(Request(n=1))


def test_a_sample_that_is_not_finite_fails_alone(tiny_bundle: Path) -> None:
    model = difftool.load(tiny_bundle, threads=1, max_batch=4)
    program = ddpm(model.spec, steps=4)
    infinite = np.full(model.spec.shape, np.float32(3e38))
    start = ddim(model.spec.up_to(0.5), steps=4, clip=False)
    bad = model.submit(Request(start, n=1, init=infinite))
    good = model.submit(Request(program, n=3, seed=1))
    with pytest.raises(CheckFailed, match="not finite"):
        bad.result(SOON)
    alone = Model(model.bundle, model.backend, max_batch=1)
    assert good.result(SOON).tobytes() == alone.sample(program, n=3, seed=1).tobytes()
    del model
    gc.collect()
