"""Programs as the arrays that sampler.onnx takes."""

import json
from dataclasses import replace

import numpy as np
import pytest

from difftool.diffusion import start
from difftool.diffusion.packed import graph_inputs, pack_program
from difftool.diffusion.program import Program
from difftool.diffusion.samplers import ddim
from difftool.errors import UsageError
from tests.oracles.analytic import VP


@pytest.fixture
def program() -> Program:
    return ddim(VP, steps=4)


@pytest.mark.parametrize(
    ("given", "parts"),
    [(start.normal(2.5), [0, 0, 2.5]), (start.uniform(-1.0, 0.5), [-1, 1.5, 0])],
)
def test_the_start_has_two_parts(program: Program, given: start.Start, parts: list[float]) -> None:
    arrays = graph_inputs(replace(program, start=given))
    np.testing.assert_array_equal(arrays["start"], np.float32(parts))
    np.testing.assert_array_equal(arrays["table"], program.table.astype(np.float32))
    np.testing.assert_array_equal(arrays["cond"], program.conds.astype(np.float32))


def test_what_the_graph_cannot_do_is_refused(program: Program) -> None:
    with pytest.raises(UsageError, match="starts from data"):
        graph_inputs(replace(program, start=start.data()))
    with pytest.raises(UsageError, match="an order of draws of its own"):
        graph_inputs(replace(program, draws=program.draws[::-1]))


def test_the_file_says_where_its_arrays_lie(program: Program) -> None:
    data = pack_program(program)
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    assert header.pop("__metadata__") == {"program": program.name}
    assert (8 + length) % 8 == 0
    ends = [entry["data_offsets"][1] for entry in header.values()]
    assert ends[-1] == len(data) - 8 - length
