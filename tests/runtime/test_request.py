"""A request: the arguments of `sample` and `stream`, written once, as a value that is run."""

import inspect
from dataclasses import FrozenInstanceError, fields
from pathlib import Path

import numpy as np
import pytest

import difftool
from difftool.errors import Cancelled
from difftool.runtime import Model, Request, State


@pytest.fixture(scope="module")
def model(tiny_bundle: Path) -> Model:
    return difftool.load(tiny_bundle, max_batch=2, threads=1)


@pytest.mark.parametrize("method", [Model.sample, Model.stream])
def test_the_arguments_are_the_fields_of_a_request(method: object) -> None:
    arguments = list(inspect.signature(method).parameters.values())[1:]
    assert arguments == list(inspect.signature(Request).parameters.values())
    assert [each.name for each in arguments] == [field.name for field in fields(Request)]


def test_a_wrong_argument_is_no_argument(model: Model) -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'sead'"):
        model.sample(sead=3)


def test_a_request_is_run_as_its_arguments_are(model: Model) -> None:
    request = Request(n=3, seed=5, first_sample=1, every=7)
    runs = [model.run(request), model.stream(n=3, seed=5, first_sample=1, every=7)]
    seen = [[(state.step, state.first, state.x.copy()) for state in run] for run in runs]
    assert [state[:2] for state in seen[0]] == [(s, f) for f in (1, 3) for s in (7, 14, 20)]
    for one, other in zip(*seen, strict=True):
        assert one[:2] == other[:2]
        np.testing.assert_array_equal(one[2], other[2])


def test_a_request_stays_as_it_was_made() -> None:
    data = [[[0.5] * 8] * 8]
    request = Request(n=1, init=data)
    data[0][0][0] = 0.0
    np.testing.assert_array_equal(request.init, np.full((1, 8, 8), 0.5, np.float32))
    with pytest.raises(FrozenInstanceError):
        request.n = 2  # type: ignore[misc]


def test_a_hook_sees_a_stream_too(model: Model) -> None:
    seen: list[int] = []

    def stop_at_the_second(state: State) -> bool:
        seen.append(state.step)
        return len(seen) < 2

    states = model.stream(n=2, every=5, on_step=stop_at_the_second)
    assert next(states).step == 5
    with pytest.raises(Cancelled, match="step 10 of 20"):
        next(states)
    assert seen == [5, 10]
