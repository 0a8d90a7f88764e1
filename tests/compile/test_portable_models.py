"""sampler.onnx of the shipped models against the Python runtime, over whole runs."""

import numpy as np
import pytest
from tests.compile.sampler_onnx import AGREEMENT, draw, opened

import difftool
from difftool.diffusion.packed import graph_inputs
from difftool.diffusion.samplers import dpmpp_2m


@pytest.mark.parametrize("name", ["ddpm-mnist", "ncsn-mnist"])
def test_a_shipped_model_by_a_thousand_rows_is_that_of_the_runtime(name: str) -> None:
    model = difftool.load(name, backend="onnxruntime-cpu")
    assert len(model.default_program()) >= 1000
    got = draw(opened(model.bundle), seed=2**63 + 11, n=1, first_sample=[5])
    wanted = model.sample(n=1, seed=2**63 + 11, first_sample=5)
    np.testing.assert_allclose(got["samples"], wanted, rtol=0, atol=AGREEMENT)
    pixels = difftool.to_uint8(wanted, model.spec)
    assert got["images"].dtype == np.uint8
    assert np.abs(got["images"].astype(int) - pixels).max() <= 1


@pytest.mark.parametrize(("name", "steps"), [("ddpm-mnist", 20), ("ncsn-mnist", 10)])
def test_another_program_runs_on_the_same_file(name: str, steps: int) -> None:
    model = difftool.load(name, backend="onnxruntime-cpu")
    program = dpmpp_2m(model.spec, steps=steps)
    got = draw(opened(model.bundle), n=3, **graph_inputs(program))
    wanted = model.sample(program, n=3, seed=3)
    np.testing.assert_allclose(got["samples"], wanted, rtol=0, atol=AGREEMENT)


def test_table_and_cond_alone_are_enough_where_the_start_is_the_same() -> None:
    model = difftool.load("ddpm-mnist", backend="onnxruntime-cpu")
    program = dpmpp_2m(model.spec, steps=20)
    arrays = graph_inputs(program)
    got = draw(opened(model.bundle), n=1, table=arrays["table"], cond=arrays["cond"])
    np.testing.assert_allclose(
        got["samples"], model.sample(program, n=1, seed=3), rtol=0, atol=AGREEMENT
    )
