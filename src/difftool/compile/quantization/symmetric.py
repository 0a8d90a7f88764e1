"""Make a step graph whose network computes its products in 8-bit integers, for TensorRT.

It is calibrated on the model's own run. Weights are symmetric with a scale for each channel, and
activations symmetric with one for each tensor, so that every zero point is 0, as TensorRT demands.
Q/DQ pairs stand around the products that have weights. Products of attention, and the first and
the last layer, stay as they are.
"""

import logging
from typing import Final

import onnx
import onnx_ir as ir

from difftool.alone import onnx_quantization
from difftool.bundle import STEP, Bundle
from difftool.compile.precision import network_products
from difftool.compile.quantization.calibration import Reader, from_trajectory
from difftool.errors import UsageError
from difftool.files import temporary_folder

_SAMPLES: Final = 2  # in the run to calibrate on


def in_int8(bundle: Bundle) -> onnx.ModelProto:
    """Return the step graph with its products in int8.

    Activations get the ranges of a run of the bundle's default program with seed 0. UsageError if
    the network is too small to have a layer between its first and its last.
    """
    quantization = onnx_quantization()
    model = onnx.load_from_string(bundle.graph(STEP).data)
    names = _inner_products(model)
    if not names:
        raise UsageError(f"the network of {bundle.path} is too small for int8", "choose fp16")

    runs = from_trajectory(bundle, bundle.default_program(), samples=_SAMPLES)

    with temporary_folder() as folder:
        out = folder / "int8.onnx"
        root = logging.getLogger()
        level = root.level
        # ONNX Runtime warns that it wants a preprocessing, which would change other nodes.
        root.setLevel(logging.ERROR)
        try:
            quantization.quantize_static(
                model,
                out,
                Reader(runs.feeds),
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


def _inner_products(model: onnx.ModelProto) -> list[str]:
    """Return names of the network's products with weights but the first and last, in order."""
    names = [
        str(node.name)
        for node in network_products(ir.from_proto(model).graph)
        if any(value is not None and value.const_value is not None for value in node.inputs)
    ]
    return names[1:-1]
