"""Export the step module as TorchScript."""

import io
import warnings

import torch

from difftool.export.onnx import example_inputs
from difftool.export.step import StepModule


def torchscript(module: StepModule) -> bytes:
    """Trace the step module; inputs and outputs are those of `StepModule`, in its order."""
    buffer = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # tracing is deprecated in favour of torch.export
        torch.jit.save(torch.jit.trace(module, example_inputs(module), check_trace=False), buffer)
    return buffer.getvalue()
