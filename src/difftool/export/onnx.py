"""Export the step module and the conditioner as ONNX files."""

import contextlib
import logging
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor, nn
from torch.export import Dim

from difftool.diffusion.columns import Column
from difftool.diffusion.features import Feature
from difftool.diffusion.spec import ModelSpec
from difftool.errors import MissingDependencyError
from difftool.export.step import Conditioner, StepModule

if TYPE_CHECKING:
    from difftool.export.lowerings import Lowerings

OPSET: Final = 18  # difftool.export.lowerings is written in this opset
Axes = Mapping[str, tuple[Dim, ...]]  # the dynamic leading axes of each input

# Sizes of the example inputs. All of them are dynamic in the graph.
_BATCH, _SLOTS, _ROWS, _CONDS = 2, 2, 5, 3


def step_module(
    network: nn.Module, spec: ModelSpec, features: Collection[Feature] = ()
) -> StepModule:
    """Return a network with the row around it that fits its spec, ready to export."""
    module = StepModule(
        network,
        dimensions=len(spec.shape),
        learned_variance=spec.learned_variance,
        features=features,
    )
    return module.eval()


def example_inputs(module: StepModule, spec: ModelSpec, width: int) -> tuple[Tensor, ...]:
    """Return inputs of the step module, in order, for a conditioner of `width` columns."""
    shape = (_BATCH, *spec.shape)
    known = (torch.zeros(shape), torch.zeros(shape)) if Feature.KNOWN in module.features else ()
    return (
        torch.zeros(shape),
        torch.zeros(_SLOTS, *shape),
        torch.zeros(_BATCH, dtype=torch.int64),
        torch.zeros(shape),
        torch.zeros(_ROWS, Column.HISTORY + _SLOTS),
        torch.zeros(_CONDS, width),
        *known,
    )


def conditioner_inputs(spec: ModelSpec, count: int = _CONDS) -> tuple[Tensor, ...]:
    """Return inputs of the conditioner: `count` conds, and as many labels if there are classes."""
    labels = (torch.zeros(count, dtype=torch.int64),) if spec.classes else ()
    return (torch.zeros(count), *labels)


def conditioner_width(network: nn.Module, spec: ModelSpec) -> int:
    """Return C, the number of values that the network takes from its conditioner; perhaps 0."""
    device = next(network.parameters()).device
    inputs = [tensor.to(device) for tensor in conditioner_inputs(spec)]
    return int(network.condition(*inputs).shape[1])  # type: ignore[operator]


def export_step(
    module: StepModule,
    spec: ModelSpec,
    width: int,
    path: Path,
    lowerings: "Lowerings | None" = None,
) -> None:
    """Write the step graph, with dynamic batch, history, table and cond_table.

    Only benchmarks give `lowerings` other than `difftool.export.lowerings.CHOSEN`. A graph of
    points also takes one row number for the whole batch, except with Feature.GUIDANCE, which needs
    one for each half of a doubled batch.
    """
    from difftool.export.lowerings import CHOSEN
    from difftool.export.lowerings.rows import share_rows

    lowerings = lowerings or CHOSEN
    if len(spec.shape) == 1 and Feature.GUIDANCE not in module.features:
        lowerings = replace(lowerings, rewrites=(*lowerings.rewrites, share_rows))
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
    export_module(
        module, example_inputs(module, spec, width), axes, StepModule.OUTPUTS, path, lowerings
    )


def export_conditioner(network: nn.Module, spec: ModelSpec, path: Path) -> None:
    """Write the conditioner: cond [U], and label [U] with classes -> cond_table [U, C]."""
    conds, inputs = Dim("conds"), conditioner_inputs(spec)
    axes: Axes = dict.fromkeys(("cond", "label")[: len(inputs)], (conds,))
    export_module(Conditioner(network).eval(), inputs, axes, ("cond_table",), path)


def export_module(
    module: nn.Module,
    inputs: tuple[Tensor, ...],
    axes: Axes,
    outputs: Sequence[str],
    path: Path,
    lowerings: "Lowerings | None" = None,
) -> None:
    """Write a module as ONNX; `axes` names its inputs and their dynamic axes."""
    with _quiet():
        from onnx_ir.passes.common import ClearMetadataAndDocStringPass

        from difftool.export.lowerings import CHOSEN

        lowerings = lowerings or CHOSEN
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
    program.save(str(path), external_data=False)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter, which warns of optional packages and of its own deprecations."""
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
