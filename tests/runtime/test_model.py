"""The embedding API: samples do not depend on how they are batched, and a run can be watched."""

from pathlib import Path

import numpy as np
import pytest

import difftool
from difftool.errors import ArtefactError, Cancelled, UsageError
from difftool.runtime import Model, State

LEVEL = 1 / 255 * 2  # one grey level of the data range -1 .. 1


@pytest.fixture(scope="module")
def model(tiny_bundle: Path) -> Model:
    return difftool.load(tiny_bundle, max_batch=6, threads=1)


def test_a_run_is_a_function_of_its_seed(model: Model) -> None:
    first, second = model.sample(n=5, seed=3), model.sample(n=5, seed=3)
    assert first.dtype == np.float32
    assert first.shape == (5, 1, 8, 8)
    assert np.array_equal(first, second)
    assert np.abs(first - model.sample(n=5, seed=4)).max() > 0.1


@pytest.mark.parametrize("max_batch", [1, 3, 16])
def test_batching_changes_rounding_only(tiny_bundle: Path, model: Model, max_batch: int) -> None:
    other = difftool.load(tiny_bundle, max_batch=max_batch, threads=1)
    assert np.abs(other.sample(n=16) - model.sample(n=16)).max() < LEVEL / 100


def test_the_stream_ends_where_sample_does(model: Model) -> None:
    states = [(s.step, s.steps, s.first, s.x.copy()) for s in model.stream(n=8, seed=1)]
    assert [(step, first) for step, _, first, _ in states] == [
        (step, first) for first in (0, 6) for step in range(1, 21)
    ]
    assert all(steps == 20 for _, steps, _, _ in states)
    samples = model.sample(n=8, seed=1)
    assert np.array_equal(states[19][3], samples[:6])
    assert np.array_equal(states[39][3], samples[6:])


def test_previews_are_read_only_and_in_the_data_range(model: Model) -> None:
    state = next(iter(model.stream(n=2)))
    assert state.denoised.shape == (2, 1, 8, 8)
    assert np.abs(state.denoised).max() <= 1
    with pytest.raises(ValueError, match="read-only"):
        state.x[...] = 0


def test_a_hook_sees_every_step_and_can_cancel(model: Model) -> None:
    seen: list[int] = []

    def stop_at_four(state: State) -> bool:
        seen.append(state.step)
        return state.step < 4

    with pytest.raises(Cancelled, match="step 4 of 20"):
        model.sample(n=2, on_step=stop_at_four)
    assert seen == [1, 2, 3, 4]
    states = model.stream(n=2, every=3, on_step=stop_at_four)
    assert next(states).step == 3
    with pytest.raises(Cancelled, match="step 6 of 20"):
        next(states)
    assert seen == [1, 2, 3, 4, 3, 6]


def test_points_are_as_good_as_images(points_bundle: Path) -> None:
    model = difftool.load(points_bundle)
    assert model.max_batch == 1024
    assert model.sample(n=10).shape == (10, 2)
    with pytest.raises(UsageError, match="not images"):
        difftool.to_uint8(model.sample(n=1), model.spec)


def test_pixels_are_the_data_range_in_256_levels(model: Model) -> None:
    samples = np.array([-2.0, -1.0, 0.0, 1.0, 2.0], np.float32).reshape(1, 1, 1, 5)
    assert difftool.to_uint8(samples, model.spec).ravel().tolist() == [0, 0, 128, 255, 255]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": 0}, "0 samples"),
        ({"n": -3}, "-3 samples"),
        ({"seed": -1}, "seed -1"),
        ({"first_sample": -1}, "first sample -1"),
        ({"first_sample": 1 << 32}, "first sample"),
    ],
)
def test_refused_arguments(model: Model, arguments: dict[str, int], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        model.sample(**arguments)


def test_loading_names_what_is_wrong(tiny_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="no shipped model of that name"):
        difftool.load("celeba")
    with pytest.raises(ArtefactError, match=r"no bundle\.json"):
        difftool.load(tmp_path)
    with pytest.raises(UsageError, match="a batch of 0"):
        difftool.load(tiny_bundle, max_batch=0)


def test_a_name_that_is_not_public() -> None:
    with pytest.raises(AttributeError, match="no attribute 'smapler'"):
        _ = difftool.smapler
