"""The step module against the float64 reference, and what the exported graph promises."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from difftool.bundle import read_bundle
from difftool.diffusion.calls import SamplerCall
from difftool.diffusion.columns import Column
from difftool.diffusion.program import Program
from difftool.diffusion.samplers import ddim, ddpm
from difftool.export.step import StepModule
from difftool.networks.trained import load_checkpoint
from difftool.runtime.backends.onnxruntime_cpu import OnnxRuntimeCpu
from difftool.runtime.backends.reference import Reference
from difftool.verify.eager import Eager
from tests.fixtures import IMAGE_SPEC
from tests.oracles.toy import Toy, in_numpy

SPEC = replace(IMAGE_SPEC, shape=(3,))


def with_history(program: Program) -> Program:
    """The same program with every column in use: two history slots and a raw-network term."""
    rng = np.random.default_rng(0)
    table = np.concatenate([program.table, np.zeros((len(program), 1))], axis=1)
    for column in (Column.G, Column.E, Column.F, Column.HISTORY, Column.HISTORY + 1):
        table[:, column] = 0.1 * rng.normal(size=len(program))
    table[:, Column.C_IN] = 0.9
    return replace(program, call=SamplerCall("any"), table=table, exact_noise=False)


def steps_of_both(expected: Any, found: Any, program: Program, seed: int) -> Iterator[None]:
    """Run two batches from the same start and on the same noise; yield after every row."""
    rng = np.random.default_rng(seed)
    x, *noises = rng.normal(size=(len(program) + 1, *expected.x.shape)).astype(np.float32)
    for batch in (expected, found):
        batch.start(x)
    for noise in noises:
        expected.step(noise)
        found.step(noise)
        yield


@pytest.mark.parametrize("learned", [False, True])
def test_the_step_is_the_documented_arithmetic(learned: bool) -> None:
    spec = replace(SPEC, learned_variance=learned)
    program = with_history(ddpm(spec, variance="learned" if learned else "small"))
    network = partial(in_numpy, wide=learned)
    expected = Reference(network, spec.shape, learned_variance=learned).batch(program, 5)
    found = Eager(Toy(wide=learned), spec).batch(program, 5)
    for _ in steps_of_both(expected, found, program, 1):
        for part in ("x", "denoised", "history"):
            assert np.abs(getattr(found, part) - getattr(expected, part)).max() < 2e-5, part


def test_samples_at_different_rows_of_different_programs_share_a_batch() -> None:
    """Stack two programs in one table; every sample advances by its own row number."""
    first, second = ddim(SPEC, steps=20), ddpm(SPEC)
    module = StepModule(Toy(), SPEC)
    table = torch.from_numpy(np.concatenate([first.table, second.table]).astype(np.float32))
    cond_table = module.network.condition(torch.from_numpy(first.conds.astype(np.float32)))
    assert np.array_equal(first.conds, second.conds)
    generator = torch.Generator().manual_seed(0)
    x, noise = torch.randn(2, 2, 3, generator=generator)
    row, history = torch.tensor([4, 20 + 11]), torch.zeros(1, 2, 3)
    together = module(x, history, row, noise, table, cond_table)
    assert together[2].tolist() == [5, 32]
    for i in range(2):
        one = slice(i, i + 1)
        alone = module(x[one], history[:, one], row[one], noise[one], table, cond_table)
        assert torch.equal(alone[0], together[0][one])
        assert torch.equal(alone[3], together[3][one])


def test_the_graph_is_plain_onnx_with_named_dynamic_axes(tiny_bundle: Path) -> None:
    model = onnx.load(tiny_bundle / "step.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert {opset.domain for opset in model.opset_import} <= {"", "ai.onnx"}
    assert not any(node.op_type in ("Loop", "If", "Scan") for node in model.graph.node)
    axes = {
        value.name: [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in [*model.graph.input, *model.graph.output]
    }
    assert axes["x"] == axes["noise"] == axes["x_next"] == axes["denoised"] == ["batch", 1, 8, 8]
    assert axes["history"] == axes["history_next"] == ["slots", "batch", 1, 8, 8]
    assert axes["table"] == ["rows", "columns"]
    assert axes["row"] == axes["row_next"] == ["batch"]
    assert axes["cond_table"][0] == "conds"


def test_the_graph_says_nothing_of_where_it_was_made(tiny_bundle: Path) -> None:
    for name in ("step.onnx", "conditioner.onnx"):
        data = (tiny_bundle / name).read_bytes()
        assert b".py" not in data
        assert str(Path(torch.__file__).parent).encode() not in data


def test_time_conditioning_is_outside_the_graph(tiny_checkpoint: Path, tiny_bundle: Path) -> None:
    """No sine of a timestep and none of the embedding's weights are left in the loop."""
    operators = {node.op_type for node in onnx.load(tiny_bundle / "step.onnx").graph.node}
    assert operators.isdisjoint({"Sin", "Cos"})
    session = onnxruntime.InferenceSession(str(tiny_bundle / "conditioner.onnx"))
    conds = np.arange(20, dtype=np.float32)
    expected = load_checkpoint(tiny_checkpoint).network.condition(torch.from_numpy(conds))
    (found,) = session.run(None, {"cond": conds})
    assert np.abs(found - expected.numpy()).max() < 1e-5


def test_one_graph_serves_any_history(tiny_bundle: Path, tiny_checkpoint: Path) -> None:
    loaded = load_checkpoint(tiny_checkpoint)
    program = with_history(ddpm(loaded.spec, clip=False))
    reference = Eager(loaded.network, loaded.spec).batch(program, 2)
    candidate = OnnxRuntimeCpu(read_bundle(tiny_bundle), threads=1).batch(program, 2)
    for _ in steps_of_both(reference, candidate, program, 2):
        pass
    assert candidate.history.shape == (2, 2, 1, 8, 8)
    for part in ("x", "history"):
        found, expected = getattr(candidate, part), getattr(reference, part)
        assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max(), part
