"""Export the step module and the conditioner as ONNX files."""

import contextlib
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Final

import torch
from onnx_ir.passes.common import ClearMetadataAndDocStringPass
from torch import Tensor, nn
from torch.export import Dim

from difftool.bundle import CONDITIONER, STEP
from difftool.diffusion.columns import Column
from difftool.diffusion.features import Feature
from difftool.diffusion.spec import ModelSpec
from difftool.export.lowerings import CHOSEN, Lowerings
from difftool.export.lowerings.guidance import skip_unguided
from difftool.export.lowerings.rows import share_rows
from difftool.export.step import Conditioner, StepModule

OPSET: Final = 18  # difftool.export.lowerings is written in this opset
Axes = Mapping[str, tuple[Dim, ...]]  # the dynamic leading axes of each input

# Sizes of the example inputs. All of them are dynamic in the graph.
_BATCH, _SLOTS, _ROWS, _CONDS = 2, 2, 5, 3


def example_inputs(
    module: StepModule, batch: int = _BATCH, slots: int = _SLOTS
) -> tuple[Tensor, ...]:
    """Return inputs of the step module, in order."""
    shape = (batch, *module.spec.shape)
    known = (torch.zeros(shape), torch.zeros(shape)) if Feature.KNOWN in module.features else ()
    return (
        torch.zeros(shape),
        torch.zeros(slots, *shape),
        torch.zeros(batch, dtype=torch.int64),
        torch.zeros(shape),
        torch.zeros(_ROWS, Column.HISTORY + slots),
        torch.zeros(_CONDS, conditioner_width(module)),
        *known,
    )


def conditioner_width(module: StepModule) -> int:
    """Return C, the number of values that the network takes from its conditioner; perhaps 0."""
    device = next(module.parameters()).device
    inputs = [tensor.to(device) for tensor in _conditioner_inputs(module.spec)]
    return int(module.network.condition(*inputs).shape[1])  # type: ignore[operator]


def export_graphs(module: StepModule, folder: Path) -> None:
    """Write step.onnx into a folder, and conditioner.onnx if the network takes values from it."""
    export_step(module, folder / STEP)
    if conditioner_width(module):
        inputs = _conditioner_inputs(module.spec)
        axes: Axes = dict.fromkeys(("cond", "label")[: len(inputs)], (Dim("conds"),))
        conditioner = Conditioner(module.network).eval()
        export_module(conditioner, inputs, axes, ("cond_table",), folder / CONDITIONER)


def export_step(module: StepModule, path: Path, lowerings: Lowerings = CHOSEN) -> None:
    """Write the step graph, with dynamic batch, history, table and cond_table.

    Only benchmarks give other `lowerings`. A graph of points also takes one row number for the
    whole batch, except with Feature.GUIDANCE, which needs one for each half of a doubled batch.
    """
    if len(module.spec.shape) == 1 and Feature.GUIDANCE not in module.features:
        lowerings = replace(lowerings, rewrites=(*lowerings.rewrites, share_rows))
    if Feature.GUIDANCE in module.features:
        lowerings = replace(lowerings, rewrites=(*lowerings.rewrites, skip_unguided))
    batch, slots = Dim("batch"), Dim("slots")
    # With this bound the exporter has less shape arithmetic to do, and takes less time.
    columns = Dim("columns", min=Column.HISTORY + 1)
    axes: Axes = {
        "x": (batch,),
        "history": (slots, batch),
        "row": (batch,),
        "noise": (batch,),
        "table": (Dim("rows"), columns),
        "cond_table": (Dim("conds"),),
    }
    if Feature.KNOWN in module.features:
        axes = {**axes, "known": (batch,), "mask": (batch,)}
    export_module(module, example_inputs(module), axes, StepModule.OUTPUTS, path, lowerings)


def export_module(
    module: nn.Module,
    inputs: tuple[Tensor, ...],
    axes: Axes,
    outputs: Sequence[str],
    path: Path,
    lowerings: Lowerings = CHOSEN,
    metadata: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Write a module as ONNX; `axes` names its inputs and their dynamic axes.

    `metadata` becomes the file's own.
    """
    with _quiet():
        program = torch.onnx.export(
            module,
            inputs,
            dynamo=True,
            dynamic_shapes=tuple(dict(enumerate(names)) for names in axes.values()),
            input_names=list(axes),
            output_names=list(outputs),
            opset_version=OPSET,
            custom_translation_table=dict(lowerings.translations),
            verbose=False,
        )
    assert program is not None
    for rewrite in lowerings.rewrites:
        rewrite(program.model.graph)
    # Metadata of each node has the stack trace of its line of Python, with paths of this machine.
    ClearMetadataAndDocStringPass()(program.model)
    program.model.metadata_props.update(metadata)
    program.save(str(path), external_data=False)


def _conditioner_inputs(spec: ModelSpec) -> tuple[Tensor, ...]:
    """Return inputs of the conditioner: conds, and labels if there are classes."""
    labels = (torch.zeros(_CONDS, dtype=torch.int64),) if spec.classes else ()
    return (torch.zeros(_CONDS), *labels)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter, which warns of optional packages and of its own deprecations."""
    exporter = logging.getLogger("torch.onnx")
    level = exporter.level
    exporter.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        exporter.setLevel(level)
