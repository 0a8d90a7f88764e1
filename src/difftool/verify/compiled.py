"""The step module compiled by torch.compile, which needs a C++ compiler to compile for a CPU."""

from collections.abc import Callable
from typing import Any

import torch
from torch.export import Dim

from difftool.diffusion.columns import Column
from difftool.export.onnx import example_inputs
from difftool.export.step import StepModule
from difftool.runtime.backends.torchscript import Step


def jit_compiled(*, slots: int = 1, mode: str = "default") -> Callable[[StepModule], Step]:
    """Return a function that compiles with torch.compile, at the first step of every shape.

    `slots` is the number of the program's history slots. `mode` is an argument of torch.compile,
    such as "max-autotune-no-cudagraphs".
    """

    def compiled(module: StepModule) -> Step:
        # torch.compile alone fails on how the module indexes its columns; torch.export does not.
        return torch.compile(_exported(module, slots).module(), mode=mode, dynamic=False)

    return compiled


def _exported(module: StepModule, slots: int) -> Any:
    """Return the module exported by torch.export, with dynamic batch, rows and conds.

    The number of history slots is fixed: export would fix it anyway, to that of its example.
    """
    device = next(module.parameters()).device
    x, _, row, noise, table, *others = (tensor.to(device) for tensor in example_inputs(module))
    history = x.new_zeros(slots, *x.shape)
    table = x.new_zeros(len(table), Column.HISTORY + slots)
    inputs = (x, history, row, noise, table, *others)
    batch, rows, conds = ({0: Dim(name)} for name in ("batch", "rows", "conds"))
    axes: list[Any] = [batch, {1: batch[0]}, batch, batch, rows, conds, batch, batch]
    return torch.export.export(module, inputs, dynamic_shapes=tuple(axes[: len(inputs)]))
