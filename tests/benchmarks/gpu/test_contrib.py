"""The lowering to ONNX Runtime's own operators, emulated in numpy from their definitions.

The definitions are those of ONNX Runtime's ContribOperators.md, which its operator schemas repeat.
"""

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from gpu.contrib import ATTENTION, DOMAIN, NORM, with_contrib
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from difftool.bundle import STEP
from difftool.runtime.shipped import open_bundle


class GroupNorm(OpRun):
    """Y = gamma * (x - mean) / sqrt(variance + epsilon) + beta of [N, H, W, C], then SiLU."""

    op_domain = DOMAIN

    def _run(
        self, x: Any, gamma: Any, beta: Any, *, activation: int, groups: int, epsilon: float,
        channels_last: int,
    ) -> tuple[np.ndarray]:  # fmt: skip
        assert channels_last == 1
        assert gamma.dtype == beta.dtype == np.float32, "the CUDA kernel takes nothing else"
        n, h, w, c = x.shape
        grouped = x.astype(np.float64).reshape(n, h * w, groups, c // groups)
        mean, variance = (f(grouped, axis=(1, 3), keepdims=True) for f in (np.mean, np.var))
        y = ((grouped - mean) / np.sqrt(variance + epsilon)).reshape(x.shape) * gamma + beta
        return ((y / (1 + np.exp(-y)) if activation else y).astype(x.dtype),)


class MultiHeadAttention(OpRun):
    """softmax(scale q k') v, each [N, P, heads * D]."""

    op_domain = DOMAIN

    def _run(self, *inputs: Any, num_heads: int, scale: float) -> tuple[np.ndarray]:
        n, pixels, hidden = inputs[0].shape
        q, k, v = (
            x.astype(np.float64).reshape(n, pixels, num_heads, -1).transpose(0, 2, 1, 3)
            for x in inputs
        )
        weights = np.exp(scale * q @ k.transpose(0, 1, 3, 2))
        found = weights / weights.sum(-1, keepdims=True) @ v
        return (found.transpose(0, 2, 1, 3).reshape(n, pixels, hidden).astype(inputs[0].dtype),)


@pytest.fixture(scope="module")
def plain() -> onnx.ModelProto:
    """The step graph of a shipped model: 27 norms, 23 of them before SiLU, and 4 attentions."""
    return onnx.load(open_bundle("ddpm-mnist").file(STEP))


def kinds(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-5), ("fp16", 5e-3)])
def test_it_computes_what_the_plain_graph_computes(
    plain: onnx.ModelProto, precision: str, tolerance: float
) -> None:
    """In fp16 to what `verify` allows the state; D of a noisy row is a multiple of F's error."""
    lowered = with_contrib(plain, precision)
    onnx.checker.check_model(lowered, full_check=True)
    found = kinds(lowered)
    assert (found.count(NORM), found.count(ATTENTION)) == (27, 4)
    assert not {"InstanceNormalization", "BatchNormalization", "Sigmoid", "Softmax"} & {*found}
    session = onnxruntime.InferenceSession(
        plain.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    table, random = open_bundle("ddpm-mnist").default_program().table, np.random.default_rng(0)
    rows = {"rows": len(table), "columns": table.shape[1], "conds": len(table), "slots": 1}
    feed: dict[str, np.ndarray] = {
        node.name: random.standard_normal(
            [size if isinstance(size, int) else rows.get(size, 2) for size in node.shape]
        ).astype(np.float32)
        for node in session.get_inputs()
    }
    feed |= {"table": table.astype(np.float32), "row": np.array([3, 800])}
    emulated = ReferenceEvaluator(lowered, new_ops=[GroupNorm, MultiHeadAttention])
    names = ["x_next", "history_next", "denoised"] if precision == "fp32" else ["x_next"]
    for name, expected, value in zip(
        names, session.run(names, feed), emulated.run(names, feed), strict=True
    ):
        assert np.abs(value - expected).max() <= tolerance * np.abs(expected).max(), name


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_onnx_runtime_knows_the_operators_and_lacks_only_their_cpu_kernel(
    plain: onnx.ModelProto, precision: str
) -> None:
    """It checks names, types and attributes before it looks for a kernel."""
    graph = with_contrib(plain, precision).SerializeToString()
    with pytest.raises(Exception, match=f"NOT_IMPLEMENTED.*{NORM}"):
        onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
