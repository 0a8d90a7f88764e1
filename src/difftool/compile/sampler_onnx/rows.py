"""Run the rows of a table with loops around the step graph.

The outer loop goes over blocks of rows whose noise is drawn together, the inner loop over the rows
of a block. The step's weights are initializers of the inner loop's body, so that ONNX Runtime packs
them in advance; it does not do that for values that a nested graph takes from outside.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import onnx_ir as ir

from difftool.compile.sampler_onnx.noise import Noise
from difftool.compile.sampler_onnx.ops import Ops, Shape

_BLOCK: Final = 1 << 16  # numbers to draw together: enough to hide a node's cost, and still cached


@dataclass(frozen=True)
class State:
    """x and D [N, *S], history [K, N, *S], and the row int64 [N] at which each sample stands."""

    x: ir.Value
    history: ir.Value
    row: ir.Value
    denoised: ir.Value

    def all(self) -> list[ir.Value]:
        """Return the values in the order of the step graph's outputs."""
        return [self.x, self.history, self.row, self.denoised]


def run_rows(
    ops: Ops,
    step: ir.Model,
    noise: Noise,
    state: State,
    begin: ir.Value,
    end: ir.Value,
    fixed: Mapping[str, ir.Value],
    shape: Sequence[int],
) -> State:
    """Return the state after rows begin .. end, int64 [1] each.

    `fixed` has, by name, the step's inputs that stay the same: table, cond_table and others.
    """
    n, one = ops.size(state.x, 0), ops.ints(1)
    numbers = ops("Mul", ops("Max", n, one), ops.ints(math.prod(shape)))
    block = ops("Max", ops("Div", ops.ints(_BLOCK), numbers), one)
    rounded = ops("Add", ops("Sub", end, begin), ops("Sub", block, one))
    blocks = ops("Div", rounded, block)
    blocks = ops("Mul", blocks, ops("Min", n, one))  # none if there are no samples
    sample: tuple[ir.DataType, Shape] = (ir.DataType.FLOAT, ("batch", *shape))
    types: list[tuple[ir.DataType, Shape]] = [
        sample,
        (ir.DataType.FLOAT, ("slots", "batch", *shape)),
        (ir.DataType.INT64, ("batch",)),
        sample,
    ]
    taken = {str(known.name) for known in step.graph.inputs}

    def write_block(outer: Ops, number: ir.Value, state: Sequence[ir.Value]) -> Sequence[ir.Value]:
        before = outer("Mul", outer("Unsqueeze", number, outer.ints(0)), block)
        first = outer("Add", begin, before)
        last = outer("Min", outer("Add", first, block), end)
        after = outer.ints(1)  # draw 0 is the start noise
        draws = outer.numbers(outer("Add", first, after), outer("Add", last, after))
        drawn = noise.normal(outer, draws)

        def write_row(
            inner: Ops, number: ir.Value, state: Sequence[ir.Value]
        ) -> Sequence[ir.Value]:
            inputs = {
                **dict(zip(("x", "history", "row"), state, strict=False)),
                "noise": inner("Gather", drawn, number),
                **fixed,
            }
            used = {name: given for name, given in inputs.items() if name in taken}
            return inner.splice(step, "step.", **used)

        return outer.loop(outer("Sub", last, first), state, types, write_row)

    return State(*ops.loop(blocks, state.all(), types, write_block))
