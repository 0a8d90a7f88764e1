"""The noise of `difftool.diffusion.noise` as nodes: the same words, and numbers equal up to ulps.

Philox multiplies uint64. Older versions of ONNX Runtime have MatMul of uint64 but not Mul, so the
products are written as a matrix product. The words of a counter are kept in pairs, (c0, c2) and
(c1, c3). A round is then (p1, p0) = (c0, c2) [[0, M0], [M1, 0]] and two exclusive ors.
"""

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
import onnx_ir as ir

from difftool.compile.sampler_onnx.ops import Ops
from difftool.diffusion.noise import SAMPLING, SAMPLING_LABEL

_CROSS: Final = [[0, 0xD2511F53], [0xCD9E8D57, 0]]
_WEYL: Final = np.array([0x9E3779B9, 0xBB67AE85])
_ROUNDS: Final = 10
_LOW: Final = 0xFFFFFFFF


class Noise:
    """The noise of samples with indices int64 [N], from one seed, uint64 [1].

    The nodes for key and counters go into `ops`. Those of a draw go into the graph that uses it.
    """

    def __init__(self, ops: Ops, seed: ir.Value, indices: ir.Value, shape: Sequence[int]) -> None:
        self._shape = list(shape)
        self._count = math.prod(shape)
        self._keys = _round_keys(ops, seed)
        wide = ops("Unsqueeze", indices, ops.ints(0, 2, 3))  # [1, N, 1, 1]
        sample = ops("BitwiseAnd", wide, ops.ints(_LOW))
        self._sample = ops("Mul", sample, ops.ints(1, 0))

    def normal(self, ops: Ops, draws: ir.Value) -> ir.Value:
        """Return standard normal float32 [D, N, *S] for draws int64 [D]."""
        even, odd = self._words(ops, draws)
        radius = ops("Sqrt", ops("Mul", ops.floats(-2), ops("Log", _unit(ops, even))))
        angle = ops("Mul", ops.floats(2 * np.pi), _unit(ops, odd))
        return self._joined(
            ops, ops("Mul", radius, ops("Cos", angle)), ops("Mul", radius, ops("Sin", angle))
        )

    def uniform(self, ops: Ops, draws: ir.Value) -> ir.Value:
        """Return uniform float32 [D, N, *S] in (0, 1] for draws int64 [D]."""
        return self._joined(ops, *(_unit(ops, words) for words in self._words(ops, draws)))

    def labels(self, ops: Ops, classes: int) -> ir.Value:
        """Return a class for each sample, int64 [N], as `diffusion.labels.drawn_labels` does."""
        even, _ = self._words(ops, ops.ints(0), stream=SAMPLING_LABEL, blocks=1)
        first = ops("Slice", even, ops.ints(0), ops.ints(1), ops.ints(3))
        word = ops("Cast", ops("Reshape", first, ops.ints(-1)), to=ir.DataType.INT64)
        return ops("Mod", word, ops.ints(classes))

    def _words(
        self, ops: Ops, draws: ir.Value, *, stream: int = SAMPLING, blocks: int | None = None
    ) -> tuple[ir.Value, ir.Value]:
        """Return words 0 and 2, and 1 and 3, of each block of four: uint64 [D, N, blocks, 2]."""
        block = np.arange(-(-self._count // 4) if blocks is None else blocks)
        even = ops.constant(np.stack([block, np.full_like(block, stream)], axis=-1), np.uint64)
        draw = ops("Mul", ops("Unsqueeze", draws, ops.ints(1, 2, 3)), ops.ints(0, 1))
        odd = ops("Cast", ops("Add", self._sample, draw), to=ir.DataType.UINT64)
        cross, low = ops.constant(_CROSS, np.uint64), ops.constant([_LOW], np.uint64)
        half = ops.constant([32], np.uint64)
        for key in self._keys:
            product = ops("MatMul", even, cross)
            high = ops("BitShift", product, half, direction="RIGHT")
            even = ops("BitwiseXor", ops("BitwiseXor", high, odd), key)
            odd = ops("BitwiseAnd", product, low)
        return even, odd

    def _joined(self, ops: Ops, first: ir.Value, second: ir.Value) -> ir.Value:
        """Interleave the numbers of all pairs, twice [D, N, blocks, 2], into [D, N, *S]."""
        last = ops.ints(-1)
        pairs = ops(
            "Concat", ops("Unsqueeze", first, last), ops("Unsqueeze", second, last), axis=-1
        )
        blocks = -(-self._count // 4)
        row = ops("Reshape", pairs, ops.ints(0, 0, 4 * blocks))
        if self._count % 4:
            row = ops("Slice", row, ops.ints(0), ops.ints(self._count), ops.ints(2))
        return ops("Reshape", row, ops.ints(0, 0, *self._shape))


def _round_keys(ops: Ops, seed: ir.Value) -> Sequence[ir.Value]:
    """Return the key of each round, uint64 [1, 2]."""
    low = ops("BitwiseAnd", seed, ops.constant([_LOW], np.uint64))
    high = ops("BitShift", seed, ops.constant([32], np.uint64), direction="RIGHT")
    key = ops("Cast", ops("Concat", low, high, axis=0), to=ir.DataType.INT64)
    raised = ops("Add", key, ops.constant(np.arange(_ROUNDS)[:, None] * _WEYL, np.int64))
    keys = ops("Cast", ops("BitwiseAnd", raised, ops.ints(_LOW)), to=ir.DataType.UINT64)
    return ops.several("Split", _ROUNDS, keys, axis=0, num_outputs=_ROUNDS)


def _unit(ops: Ops, words: ir.Value) -> ir.Value:
    """Return words as float32 in (0, 1]."""
    scaled = ops("Mul", ops("Cast", words, to=ir.DataType.FLOAT), ops.floats(2.0**-32))
    return ops("Add", scaled, ops.floats(2.0**-33))
