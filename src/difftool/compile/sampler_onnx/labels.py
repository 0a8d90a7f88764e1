"""Class labels in the graph: the nodes for `difftool.diffusion.labels.lay_out_rows`."""

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from difftool.compile.sampler_onnx.noise import Noise
from difftool.compile.sampler_onnx.ops import Ops
from difftool.diffusion.columns import Column
from difftool.diffusion.spec import ModelSpec


@dataclass(frozen=True)
class Laid:
    """A table [B * R, columns] and conds [U], with one block for each label; see `Rows`.

    `guided` is the step graph's input of that name.
    """

    table: ir.Value
    cond: ir.Value
    label: ir.Value | None
    first_row: ir.Value
    guided: ir.Value | None = None


def lay_out(
    ops: Ops,
    indices: ir.Value,
    noise: Noise,
    table: ir.Value,
    cond: ir.Value,
    spec: ModelSpec,
    *,
    held: ir.Value | None,
    guided: bool,
) -> Laid:
    """Lay out the rows for samples with these indices [N] and their noise.

    This adds the inputs `label` and `guidance_scale`. A negative label, the default, stands for
    what `Request.labels` is by default; `held`, bool [1], tells that values are known.
    """
    if not spec.classes:
        return Laid(table, cond, None, ops("Mul", indices, ops.ints(0)))
    label = ops.optional("label", ops.ints(-1))
    scale = ops.optional("guidance_scale", ops.floats(1)) if guided else None
    null = ops.ints(spec.classes)
    chosen = noise.labels(ops, spec.classes)  # [N], and so is what "Where" gives
    if held is not None and spec.null_label:
        chosen = ops("Where", held, null, chosen)
    label = ops("Where", ops("Less", label, ops.ints(0)), chosen, label)
    distinct, _, block, _ = ops.several("Unique", 4, label)
    known = ops("Concat", distinct, null, axis=0) if guided else distinct
    width = ops("Shape", cond)
    spread = ops("Concat", ops("Shape", known), width, axis=0)
    repeated = ops("Expand", ops("Unsqueeze", known, ops.ints(1)), spread)
    return Laid(
        _tiled(ops, table, ops("Shape", distinct), width, scale),
        ops("Tile", cond, ops("Shape", known)),
        ops("Reshape", repeated, ops.ints(-1)),
        ops("Mul", block, ops.size(table, 0)),
        None if scale is None else _unequal(ops, scale, ops.floats(1)),
    )


def _unequal(ops: Ops, one: ir.Value, other: ir.Value) -> ir.Value:
    return ops("Cast", ops("Not", ops("Equal", one, other)), to=ir.DataType.INT64)


def _tiled(
    ops: Ops, table: ir.Value, blocks: ir.Value, width: ir.Value, scale: ir.Value | None
) -> ir.Value:
    """Repeat the table for each block of conds that it points to; the null label's is the last."""
    columns = ops.size(table, 1)
    zero = ops.ints(0)
    places = ops.numbers(zero, columns)
    own = ops("Mul", ops("Unsqueeze", ops.numbers(zero, blocks), ops.ints(1, 2)), width)
    null = own
    if scale is not None:
        one = ops("Equal", scale, ops.floats(1))
        null = ops("Where", one, own, ops("Mul", blocks, width))
        is_scale = ops("Equal", places, ops.ints(Column.GUIDANCE))
        table = ops("Where", is_scale, scale, table)
    moved = zero
    for column, by in ((Column.COND, own), (Column.NULL_COND, null)):
        moved = ops("Where", ops("Equal", places, ops.ints(column)), by, moved)
    table = ops("Add", table, ops("Cast", moved, to=ir.DataType.FLOAT))
    return ops("Reshape", table, ops("Concat", ops.constant([-1], np.int64), columns, axis=0))
