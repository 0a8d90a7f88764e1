"""Rules of matrix products: the sizes of their results, and of their intermediate values."""

import math
import re
from collections import Counter
from typing import Final

from difftool.preflight.shapes.operation import Made, Operation
from difftool.preflight.shapes.sized import FLOAT, INT32, Shape

_ELLIPSIS: Final = "..."
_OPERAND: Final = re.compile(r"[A-Za-z]*(\.\.\.[A-Za-z]*)?")


def multiplied(op: Operation, a: Shape, b: Shape) -> Shape:
    """Return the sizes of a product of stacks of matrices, by numpy's rules."""
    op.require(len(a) > 0 and len(b) > 0, "is not a matrix")
    left = a if len(a) > 1 else (1, *a)
    right = b if len(b) > 1 else (*b, 1)
    op.require(left[-1] == right[-2], "its matrices do not fit")
    stack = op.broadcast(left[:-2], right[:-2])
    return stack + left[-2:-1] * (len(a) > 1) + right[-1:] * (len(b) > 1)


def matmul(op: Operation) -> Made:
    a, b = op.input(0), op.input(1)
    return [(a.kind, multiplied(op, a.shape, b.shape))]


def matmul_integer(op: Operation) -> Made:
    return [(INT32, multiplied(op, op.input(0).shape, op.input(1).shape))]


def qlinear_matmul(op: Operation) -> Made:
    op.require(op.input(6).shape in ((), (1,)), "its scale is more than one number")
    return [(op.input(7).kind, multiplied(op, op.input(0).shape, op.input(3).shape))]


def matmul_integer_to_float(op: Operation) -> Made:
    """Size ONNX Runtime's product of whole numbers, which is scaled and may have a bias."""
    return [(op.input(2).kind, _with_bias(op, 6))]


def dynamic_quantize_matmul(op: Operation) -> Made:
    """Size ONNX Runtime's product that quantizes its first input itself."""
    return [(FLOAT, _with_bias(op, 4))]


def _with_bias(op: Operation, index: int) -> Shape:
    shape = multiplied(op, op.input(0).shape, op.input(1).shape)
    if (bias := op.optional(index)) is not None:
        op.require_spread(bias.shape, shape, "bias")
    return shape


def fused_matmul(op: Operation) -> Made:
    """Size ONNX Runtime's product of matrices that may be transposed first."""
    a, b = op.input(0), op.input(1)
    op.require(
        not op.integer("transBatchA", 0) and not op.integer("transBatchB", 0), "turns its stacks"
    )
    left = _turned(a.shape, op.integer("transA", 0))
    return [(a.kind, multiplied(op, left, _turned(b.shape, op.integer("transB", 0))))]


def gemm(op: Operation) -> Made:
    a, b, c = op.input(0), op.input(1), op.optional(2)
    op.require(len(a.shape) == len(b.shape) == 2, "is not a matrix")
    left = _turned(a.shape, op.integer("transA", 0))
    right = _turned(b.shape, op.integer("transB", 0))
    op.require(left[1] == right[0], "its matrices do not fit")
    shape = (left[0], right[1])
    if c is not None:
        op.require_spread(c.shape, shape, "third input")
    return [(a.kind, shape)]


def _turned(shape: Shape, turn: int) -> Shape:
    return (*shape[:-2], shape[-1], shape[-2]) if turn and len(shape) > 1 else shape


def einsum_sizes(op: Operation) -> tuple[list[str], dict[str, int], Shape]:
    """Return the output's labels, the size of each label, and the sizes behind "..."."""
    inputs = op.all_inputs()
    left, arrow, right = op.text("equation").replace(" ", "").partition("->")
    terms = left.split(",")
    op.require(len(terms) == len(inputs), "has another number of inputs than its equation")
    sizes: dict[str, int] = {}
    spread: list[Shape] = []
    for term, value in zip(terms, inputs, strict=True):
        op.require(_OPERAND.fullmatch(term) is not None, "its equation is not one")
        before, dots, after = term.partition(_ELLIPSIS)
        middle = len(value.shape) - len(before) - len(after)
        op.require(middle >= 0 and (bool(dots) or not middle), "an input does not fit its equation")
        spread.append(value.shape[len(before) : len(before) + middle])
        named = value.shape[: len(before)] + value.shape[len(before) + middle :]
        for label, size in zip(before + after, named, strict=True):
            known = sizes.setdefault(label, size)
            op.require(size == known or 1 in (size, known), f"the sizes of {label} differ")
            sizes[label] = size if known == 1 else known
    if not arrow:  # the output then has all labels that occur once, in alphabetical order
        counted = Counter(left.replace(_ELLIPSIS, "").replace(",", ""))
        dots = _ELLIPSIS if _ELLIPSIS in left else ""
        right = dots + "".join(sorted(label for label in counted if counted[label] == 1))
    op.require(_OPERAND.fullmatch(right) is not None, "its equation is not one")
    before, dots, after = right.partition(_ELLIPSIS)
    labels = [*before, *([_ELLIPSIS] if dots else []), *after]
    op.require(
        len(set(labels)) == len(labels) and set(before + after) <= set(sizes),
        "its equation is not one",
    )
    return labels, sizes, op.broadcast(*spread)


def einsum(op: Operation) -> Made:
    labels, sizes, spread = einsum_sizes(op)
    shape: Shape = ()
    for label in labels:
        shape += spread if label == _ELLIPSIS else (sizes[label],)
    return [(op.all_inputs()[0].kind, shape)]


def attention_scores(op: Operation) -> tuple[Shape, Shape, Shape, Shape]:
    """Return the sizes of the scores, of the result, and of keys and values with their past."""
    q, k, v = (op.input(index).shape for index in range(3))
    op.require(len(q) == len(k) == len(v) in (3, 4), "its queries, keys and values do not fit")
    if len(q) == 3:
        heads, kv_heads = op.integer("q_num_heads"), op.integer("kv_num_heads")
        op.require(
            heads > 0 and kv_heads > 0
            and not q[2] % heads and not k[2] % kv_heads and not v[2] % kv_heads,
            "its heads do not fit",
        )  # fmt: skip
        q = (q[0], heads, q[1], q[2] // heads)
        k = (k[0], kv_heads, k[1], k[2] // kv_heads)
        v = (v[0], kv_heads, v[1], v[2] // kv_heads)
    op.require(
        q[0] == k[0] == v[0] and q[3] == k[3] and k[:3] == v[:3]
        and k[1] > 0 and q[1] % k[1] == 0,
        "its queries, keys and values do not fit",
    )  # fmt: skip
    keys, values = _with_past(op, 4, k), _with_past(op, 5, v)
    op.require(keys[2] == values[2], "its past keys and values do not fit")
    scores = (*q[:3], keys[2])
    if (mask := op.optional(3)) is not None:
        allowed = op.broadcast((*mask.shape[:-1], 1), (*scores[:3], 1))
        op.require(
            allowed == (*scores[:3], 1) and len(mask.shape) > 0 and mask.shape[-1] <= scores[3],
            "its mask does not fit",
        )
    return scores, (*q[:3], values[3]), keys, values


def attention(op: Operation) -> Made:
    kind = op.input(0).kind
    scores, shape, keys, values = attention_scores(op)
    if len(op.input(0).shape) == 3:
        batch, heads, rows, width = shape
        shape = (batch, rows, heads * width)
    return [(kind, shape), (kind, keys), (kind, values), (kind, scores)]


def _with_past(op: Operation, index: int, shape: Shape) -> Shape:
    past = op.optional(index)
    if past is None:
        return shape
    before = past.shape
    op.require(
        len(before) == 4 and before[:2] == shape[:2] and before[3] == shape[3],
        "its past keys or values do not fit",
    )
    return (*shape[:2], before[2] + shape[2], shape[3])


def einsum_space(op: Operation) -> int:
    """Return the most numbers that an Einsum may hold besides its result.

    A runtime multiplies more than two inputs in an order of its own. At worst it makes all products
    at once.
    """
    if len(op.inputs) <= 2:
        return 0
    _, sizes, spread = einsum_sizes(op)
    return math.prod(sizes.values()) * math.prod(spread)
