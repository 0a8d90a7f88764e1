"""A step graph whose network computes its products in 8-bit integers, calibrated on its own runs.

Weights are symmetric with a scale for each channel, activations symmetric with one for each tensor,
so that every zero point is 0, as TensorRT demands. Q/DQ pairs stand around the products with
weights; those of attention, and the first and the last layer, stay as they are.
"""

import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import onnx_ir as ir

from difftool.bundle import CONDITIONER, STEP, Bundle
from difftool.diffusion.labels import rows_of
from difftool.errors import MissingDependencyError, UsageError
from difftool.export.precision import PRODUCTS, network_nodes
from difftool.runtime.loop import Draws, row_noise, start_noise

SAMPLES: Final = 2  # of the calibrating run
ROWS: Final = 64  # at most so many of its rows are looked at, evenly spread

Feed = dict[str, np.ndarray]


def in_int8(bundle: Bundle) -> onnx.ModelProto:
    """The step graph with its products in int8; activations get the range that the bundle's
    default program takes them through, with samples of seed 0.

    Raises:
        UsageError: the network is too small to have a layer between its first and its last.
        MissingDependencyError: ONNX Runtime is not installed.
    """
    try:
        from onnxruntime import quantization
    except ImportError as error:
        raise MissingDependencyError.extra("onnxruntime", "cpu") from error
    model = onnx.load(bundle.file(STEP))
    names = _inner_products(model)
    if not names:
        raise UsageError(f"the network of {bundle.path} is too small for int8", "choose fp16")

    class Reader(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self._feeds = trajectory(bundle)

        def get_next(self) -> Feed | None:
            return next(self._feeds, None)

    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "int8.onnx"
        root = logging.getLogger()
        level = root.level
        root.setLevel(logging.ERROR)  # it recommends a preprocessing that changes other nodes
        try:
            quantization.quantize_static(
                model,
                out,
                Reader(),
                quant_format=quantization.QuantFormat.QDQ,
                activation_type=quantization.QuantType.QInt8,
                weight_type=quantization.QuantType.QInt8,
                per_channel=True,
                nodes_to_quantize=names,
                extra_options={
                    "ActivationSymmetric": True,
                    "WeightSymmetric": True,
                    "QuantizeBias": False,
                },
            )
        finally:
            root.setLevel(level)
        return onnx.load(out)


def trajectory(bundle: Bundle) -> Iterator[Feed]:
    """What the step graph is fed on a run of the default program, at evenly spread rows."""
    program, spec = bundle.default_program(), bundle.spec
    rows = rows_of(program, spec, SAMPLES, None)
    step = _session(bundle.file(STEP))
    taken = {value.name for value in step.get_inputs()}
    draws = Draws(0, np.arange(SAMPLES), spec.shape)
    shape = (SAMPLES, *spec.shape)
    zeros = np.zeros(shape, np.float32)
    fixed = {"table": rows.table.astype(np.float32), "known": zeros, "mask": zeros}
    if CONDITIONER in bundle.manifest.files:
        conds: Feed = {"cond": rows.conds.astype(np.float32)}
        if rows.labels is not None:
            conds["label"] = rows.labels
        fixed["cond_table"] = _session(bundle.file(CONDITIONER)).run(None, conds)[0]
    state: Feed = {
        "x": start_noise(program, draws),
        "history": np.zeros((program.history, *shape), np.float32),
        "row": rows.first,
    }
    wanted = set(np.linspace(0, len(program) - 1, ROWS).round().astype(int).tolist())
    for row, noise in enumerate(row_noise(program, draws)):
        feed = {**fixed, **state, "noise": zeros if noise is None else noise}
        feed = {name: value for name, value in feed.items() if name in taken}
        if row in wanted:
            yield feed
        state = dict(zip(state, step.run(None, feed), strict=False))


def _inner_products(model: onnx.ModelProto) -> list[str]:
    """Names of the network's products with weights, in running order, but the first and last."""
    graph = ir.from_proto(model).graph
    inside = network_nodes(graph)
    names = [
        str(node.name)
        for node in graph
        if node in inside
        and node.op_type in PRODUCTS
        and any(value is not None and value.const_value is not None for value in node.inputs)
    ]
    return names[1:-1]


def _session(path: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
