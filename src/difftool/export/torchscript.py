"""Export the step module as TorchScript."""

import io
import warnings

import torch

from difftool.diffusion.spec import ModelSpec
from difftool.export.onnx import example_inputs
from difftool.export.step import StepModule


def torchscript(module: StepModule, spec: ModelSpec, width: int) -> bytes:
    """Trace the step module; inputs and outputs are those of `StepModule`, in its order."""
    inputs = example_inputs(module, spec, width)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # tracing is deprecated in favour of torch.export
        traced = torch.jit.trace(module, inputs, check_trace=False)
        buffer = io.BytesIO()
        torch.jit.save(traced, buffer)
    return buffer.getvalue()
