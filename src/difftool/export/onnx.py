"""The step module and the conditioner as ONNX files."""

import contextlib
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn
from torch.export import Dim

from difftool.diffusion.columns import Column
from difftool.diffusion.spec import ModelSpec
from difftool.errors import MissingDependencyError
from difftool.export.step import Conditioner, StepModule

OPSET: Final = (
    18  # the newest in which GroupNorm becomes InstanceNormalization, which runtimes run fast
)
Axes = Mapping[str, tuple[Dim, ...]]  # the dynamic leading axes of each input

_BATCH, _SLOTS, _ROWS, _CONDS = 2, 2, 5, 3  # of the example inputs; all are dynamic in the graph


def step_module(network: nn.Module, spec: ModelSpec) -> StepModule:
    """A network in the fused row that fits its spec, ready to export."""
    module = StepModule(network, dimensions=len(spec.shape), learned_variance=spec.learned_variance)
    return module.eval()


def example_inputs(spec: ModelSpec, width: int) -> tuple[Tensor, ...]:
    """Inputs of the step module, in order, for a conditioner of `width` columns."""
    shape = (_BATCH, *spec.shape)
    return (
        torch.zeros(shape),
        torch.zeros(_SLOTS, *shape),
        torch.zeros(_BATCH, dtype=torch.int64),
        torch.zeros(shape),
        torch.zeros(_ROWS, Column.HISTORY + _SLOTS),
        torch.zeros(_CONDS, width),
    )


def conditioner_width(network: nn.Module) -> int:
    """C: how many numbers the network takes from its conditioner; 0 where it takes none."""
    return int(network.condition(torch.zeros(1)).shape[1])  # type: ignore[operator]


def export_step(module: StepModule, spec: ModelSpec, width: int, path: Path) -> None:
    """Write the step graph, with dynamic batch, history, table and cond_table."""
    batch, slots = Dim("batch"), Dim("slots")
    # A bound the exporter can rely on keeps its shape arithmetic, and so its time, small.
    columns = Dim("columns", min=Column.HISTORY + 1)
    axes: Axes = {
        "x": (batch,),
        "history": (slots, batch),
        "row": (batch,),
        "noise": (batch,),
        "table": (Dim("rows"), columns),
        "cond_table": (Dim("conds"),),
    }
    _export(module, example_inputs(spec, width), axes, StepModule.OUTPUTS, path)


def export_conditioner(network: nn.Module, path: Path) -> None:
    """Write the conditioner, cond [U] -> cond_table [U, C], with dynamic U."""
    _export(
        Conditioner(network).eval(),
        (torch.zeros(_CONDS),),
        {"cond": (Dim("conds"),)},
        ("cond_table",),
        path,
    )


def _export(
    module: nn.Module, inputs: tuple[Tensor, ...], axes: Axes, outputs: Sequence[str], path: Path
) -> None:
    with _quiet():
        from onnx_ir.passes.common import ClearMetadataAndDocStringPass

        program = torch.onnx.export(
            module,
            inputs,
            dynamo=True,
            dynamic_shapes=tuple(dict(enumerate(names)) for names in axes.values()),
            input_names=list(axes),
            output_names=list(outputs),
            opset_version=OPSET,
            verbose=False,
        )
    assert program is not None
    # Each node carries the stack trace of its line of Python, with the paths of this machine.
    ClearMetadataAndDocStringPass()(program.model)
    program.save(str(path), external_data=False)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter warns of packages that it could use, and of its own deprecations."""
    try:
        import onnxscript  # noqa: F401  (the exporter imports it deep inside, with a worse message)
    except ImportError as error:
        raise MissingDependencyError.extra("onnxscript", "export") from error
    exporter = logging.getLogger("torch.onnx")
    level = exporter.level
    exporter.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        exporter.setLevel(level)
