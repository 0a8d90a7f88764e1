"""The inputs of `sampler.onnx`. Most of them may be left out."""

import numpy as np
import onnx_ir as ir

from difftool.compile.sampler_onnx.ops import Ops, value


class Inputs:
    """Inputs that are added when they are asked for; their nodes go into `ops`."""

    def __init__(self, ops: Ops) -> None:
        self._ops = ops
        self.all: list[ir.Value] = []

    def required(self, name: str, kind: ir.DataType) -> ir.Value:
        """Add an input [1]."""
        self.all.append(value(name, kind, 1))
        return self.all[-1]

    def optional(self, name: str, default: ir.Value) -> ir.Value:
        """Add an input that may be left out; return its value, or `default` if it has none.

        No shape is declared, so that an empty tensor of any rank stands for an absent input.
        """
        ops, kind = self._ops, default.dtype
        assert kind is not None
        given = ir.Value(name=name, type=ir.OptionalType(ir.TensorType(kind)))
        self.all.append(given)

        def empty(inner: Ops) -> ir.Value:
            return inner("Identity", inner.constant(np.zeros(0), kind.numpy()))

        content = ops.choice(
            ops("OptionalHasElement", given),
            lambda inner: inner("OptionalGetElement", given),
            empty,
        )
        return ops.choice(
            ops("Greater", ops("Size", content), ops.constant(0, np.int64)),
            lambda inner: inner("Identity", content),
            lambda inner: inner("Identity", default),
        )
