"""Choose the lowerings of a step graph by target: what runs fastest on a CPU does not on a GPU.

| target | graph | upsampling | group norm |
|---|---|---|---|
| CPUs | step.onnx, step.int8.onnx | four 2x2 convolutions | instance norm, batch norm |
| GPUs | 16 bits; TensorRT's in fp32 | Resize, 3x3 convolution | layer norm, Mul, Add |
| TensorRT, 8 bits | calibrated on step.onnx | as on CPUs | as on CPUs |

The exporter writes what is best on CPUs, by benchmarks/graph_lowerings.py: fewer products, and
operators that ONNX Runtime has vectorized. On a GPU a kernel costs more than the products that it
saves: benchmarks/gpu_kernels.py counts the kernels of a step. In bfloat16 it also decides whether a
graph loads, since ONNX Runtime's CUDA provider has no such batch norm, and no instance norm in the
opset that bfloat16 needs.
"""

from collections.abc import Callable, Sequence
from typing import Final

import onnx
import onnx_ir as ir

from difftool.compile.lowerings.norms import lower_norms
from difftool.compile.lowerings.upsampling import join_upsampling

Lowering = Callable[[ir.Graph], None]

GPU: Final[tuple[Lowering, ...]] = (join_upsampling, lower_norms)


def lowered(model: onnx.ModelProto, lowerings: Sequence[Lowering] = GPU) -> onnx.ModelProto:
    """Return a step graph rewritten for a target; it computes the same numbers."""
    parsed = ir.from_proto(model)
    for lowering in lowerings:
        lowering(parsed.graph)
    result: onnx.ModelProto = ir.to_proto(parsed)
    onnx.checker.check_model(result, full_check=True)
    return result
