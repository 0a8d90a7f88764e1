"""Small cases of every operator that has a rule."""

from typing import Any, Final

import numpy as np
from onnx import TensorProto, helper

from difftool.preflight.shapes.table import REDUCTIONS, SAME
from tests.oracles.single import Fixed, Single, fixed, image, scalar

HALF: Final = np.float16
I64: Final = np.int64
I32: Final = np.int32
U8: Final = np.uint8
I8: Final = np.int8
BOOL: Final = np.bool_

ONE: Final = scalar(1, np.float32)
HALF_ONE: Final = scalar(0.5, np.float32)
ZERO: Final = scalar(0, U8)
SCALED: Final = (ONE, ZERO)  # a scale and its zero
X: Final = image(2, 4, 6, 6)
ROW: Final = image(6)
SETTINGS: Final[dict[str, dict[str, Any]]] = {"LRN": {"size": 3}}
KINDS: Final = {"Not": BOOL, "BitwiseNot": I32}
NEW: Final = {"Gelu": 20, "Swish": 24}
WEIGHT: Final = image(8, 4, 3, 3)
WIDE: Final = image(4, 3, 3, 3)
BLOCKS: Final = {"axis": 1, "block_size": 4}
LOGIC: Final = ("And", "Or", "Xor")
ORDER: Final = ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual")


def tensor(kind: int, *numbers: float) -> Any:
    return helper.make_tensor("value", kind, [len(numbers)], numbers)


CASES: Final = [
    # The sizes of the first input
    *(
        Single(
            name, [X.astype(KINDS.get(name, np.float32))], SETTINGS.get(name, {}), NEW.get(name, 18)
        )
        for name in SAME
    ),
    Single("Softmax", [image(3, 5, kind=HALF)], {"axis": 0}, 13),
    Single("Identity", [image(0, 3, kind=I64)]),
    Single("Clip", [X, scalar(0, np.float32), None]),
    Single("Clip", [image(4), None, ONE]),
    Single("PRelu", [X, image(4, 1, 1)]),
    Single("CumSum", [X, scalar(1)], {"reverse": 1}),
    Single("Trilu", [X], {"upper": 0}),
    Single("Trilu", [X, scalar(-1)]),
    *(Single(name, [X]) for name in ("IsNaN", "IsInf")),
    *(Single("Cast", [X], {"to": kind}) for kind in (TensorProto.INT64, TensorProto.BFLOAT16)),
    Single("CastLike", [X, image(2, kind=HALF)]),
    Single("Dropout", [X], outputs=2),
    Single("Dropout", [X, HALF_ONE]),
    Single("InstanceNormalization", [X, image(4), image(4)]),
    Single("GroupNormalization", [X, image(4), image(4)], {"num_groups": 2}, 21),
    Single("GroupNormalization", [X, image(2), image(2)], {"num_groups": 2}, 18),
    Single("BatchNormalization", [X, *[image(4) + 1] * 4]),
    Single("LayerNormalization", [X, image(6)], {"axis": -1}, outputs=3),
    Single("LayerNormalization", [X, image(4, 6, 6), image(4, 6, 6)], {"axis": 1}),
    Single("RMSNormalization", [X, image(6, 6)], {"axis": 2}, 23),
    Single("SwiGLU", [X, X], {}, 28),
    Single("CumProd", [X, scalar(0)], {}, 26),
    Single("QuantizeLinear", [X, HALF_ONE]),
    Single("QuantizeLinear", [X, HALF_ONE, scalar(0, I8)]),
    Single("QuantizeLinear", [X, image(4) + 1, image(4, kind=U8)], {"axis": 1}),
    Single("QuantizeLinear", [X, HALF_ONE], {"output_dtype": TensorProto.INT16}, 21),
    Single("QuantizeLinear", [image(4, 8), image(4, 2) + 1], BLOCKS, 21),
    Single("DequantizeLinear", [image(2, 4, 6, kind=U8), HALF_ONE, scalar(1, U8)]),
    Single(
        "DequantizeLinear", [image(4, 3, 3, kind=I8), image(4) + 1, image(4, kind=I8)], {"axis": 0}
    ),
    Single("DequantizeLinear", [image(4, kind=I32), image(4) + 1], {"axis": 0}),
    Single("DequantizeLinear", [image(4, 8, kind=I8), image(4, 2) + 1], BLOCKS, 21),
    Single("DynamicQuantizeLinear", [X], outputs=3),
    # Broadcast
    *(Single(name, [X, ROW]) for name in ("Add", "Sub", "Mul", "Div", "Pow")),
    Single("Add", [image(1, 3, 1), image(2, 1, 4)], {}, 13),
    Single("Add", [image(0, 3), image(1, 3)]),
    Single("Mod", [image(4, kind=I64), image(1, kind=I64) + 3]),
    Single("BitShift", [image(4, kind=U8), image(1, kind=U8)], {"direction": "LEFT"}),
    *(Single(f"Bitwise{name}", [image(4, kind=I32), image(2, 1, kind=I32)]) for name in LOGIC),
    *(Single(name, [image(4, kind=BOOL), image(2, 1, kind=BOOL)]) for name in LOGIC),
    *(Single(name, [X, ROW]) for name in ORDER),
    *(Single(name, [X, ROW, image(6, 1)]) for name in ("Max", "Min", "Mean", "Sum")),
    Single("Max", [X]),
    Single("Where", [image(6, kind=BOOL), X, image(1)]),
    # Reductions
    *(
        Single(f"Reduce{name}", [X + 1], {"axes": [1, -1], "keepdims": 0}, 13)
        for name in REDUCTIONS
        if name not in ("Sum", "L1", "LogSum", "LogSumExp")  # these take an input, or are refused
    ),
    *(Single(f"Reduce{name}", [X + 1, fixed(1, -1)], {"keepdims": 1}, 18) for name in REDUCTIONS),
    Single("ReduceSum", [X, fixed(0)], {"keepdims": 0}, 13),
    Single("ReduceSum", [X], {"keepdims": 0}),
    Single("ReduceSum", [X], {"noop_with_empty_axes": 1}),
    Single("ReduceMean", [X], {}, 13),
    Single("ArgMax", [X], {"axis": -1}),
    Single("ArgMin", [X], {"axis": 1, "keepdims": 0}),
    # Numbers moved, taken or repeated
    Single("Reshape", [X, fixed(0, -1)]),
    Single("Reshape", [X, fixed(2, 4, 36)], {}, 13),
    Single("Reshape", [image(0, 3), fixed(3, 0)], {"allowzero": 1}),
    Single("Reshape", [image(1), fixed(kind=I64)]),
    *(Single("Flatten", [X], axis) for axis in ({"axis": 2}, {"axis": -1}, {"axis": 0}, {})),
    Single("Squeeze", [image(1, 3, 1)]),
    Single("Squeeze", [image(1, 3, 1), fixed(-1)], {}, 13),
    Single("Unsqueeze", [ROW, fixed(0, -1)], {}, 13),
    Single("Unsqueeze", [X, fixed(4, 1)]),
    Single("Transpose", [X]),
    Single("Transpose", [X], {"perm": [0, 2, 3, 1]}),
    Single("Concat", [X, image(2, 1, 6, 6)], {"axis": 1}),
    Single("Concat", [X, X, X], {"axis": -1}),
    Single("Split", [X, fixed(1, 3)], {"axis": 1}, 13, outputs=2),
    Single("Split", [X], {"axis": -1}, 13, outputs=3),
    Single("Split", [image(7), fixed(0, 7)], {}, 18, outputs=2),
    Single("Split", [image(7)], {"num_outputs": 3}, 18, outputs=3),
    Single("Slice", [X, fixed(1), fixed(3)]),
    Single("Slice", [X, fixed(-1, 5), fixed(-7, 0), fixed(1, -1), fixed(-1, -2)]),
    Single("Slice", [X, fixed(0), fixed(2**63 - 1), fixed(3), fixed(4)]),
    Single("Slice", [X, fixed(-1), fixed(-(2**63)), fixed(2), fixed(-1)]),
    Single("Slice", [X, fixed(5), fixed(2)]),
    Single("Pad", [X, fixed(0, 0, 1, 2, 0, 0, 3, -1)], {}, 13),
    Single("Pad", [X, fixed(1, 2, 3, 4), None, fixed(-1, 2)], {"mode": "reflect"}),
    Single("Tile", [X, fixed(1, 2, 3, 0)]),
    Single("Expand", [image(3, 1), fixed(2, 1, 6)]),
    Single("Expand", [image(3, 4), fixed(1)]),
    Single("Gather", [X, image(2, 3, kind=I64)], {"axis": 1}),
    Single("Gather", [X, scalar(1)], {"axis": -1}),
    Single("GatherElements", [X, image(1, 2, 3, 4, kind=I64)], {"axis": 2}),
    Single("GatherND", [X, np.zeros((3, 2), I64)]),
    Single("GatherND", [X, np.zeros((2, 5, 1), I64)], {"batch_dims": 1}),
    Single("ScatterElements", [X, image(1, 2, 3, 4, kind=I64), image(1, 2, 3, 4)], {"axis": 1}),
    Single("ScatterND", [X, np.zeros((3, 1), I64), image(3, 4, 6, 6)]),
    Single("TopK", [X, fixed(2)], {"axis": 1}, outputs=2),
    Single("DepthToSpace", [X], {"blocksize": 2}),
    Single("SpaceToDepth", [X], {"blocksize": 3}),
    Single("NonZero", [fixed(0, 1, 2)]),
    Single("NonZero", [np.array([[0, 1], [1, 1]]).view(Fixed)]),
    # Made from sizes and a few numbers
    Single("Constant", [], {"value": tensor(TensorProto.INT64, 1, 2, 3)}),
    *(
        Single("Constant", [], {f"value_{kind}": value})
        for kind, value in (("int", 3), ("ints", [3, 4]), ("float", 3.0), ("floats", [3.0, 4.0]))
    ),
    Single("ConstantOfShape", [fixed(2, 3)]),
    Single("ConstantOfShape", [fixed(kind=I64)], {"value": tensor(TensorProto.INT64, 1)}),
    *(
        Single("Range", [scalar(number) for number in bounds])
        for bounds in ((1, 10, 3), (10, 0, -3), (3, 0, 2))
    ),
    Single("Range", [scalar(0, np.float32), ONE, scalar(0.3, np.float32)]),
    Single("OneHot", [image(2, 3, kind=I64), scalar(5), fixed(0, 1, kind=np.float32)]),
    Single("OneHot", [image(2, 3, kind=I64), fixed(5), fixed(0, 1)], {"axis": 0}),
    *(Single("EyeLike", [image(2, 3)], kind) for kind in ({"dtype": TensorProto.INT32}, {})),
    Single("Shape", [X], {}, 13),
    *(Single("Shape", [X], {"start": start, "end": end}) for start, end in ((1, -1), (-9, 9))),
    Single("Size", [X]),
    # Products
    *(
        Single("MatMul", [image(*a), image(*b)])
        for a, b in [
            ((2, 3), (3, 4)), ((3,), (3, 4)), ((2, 3), (3,)), ((3,), (3,)),
            ((5, 1, 2, 3), (4, 3, 6)), ((3,), (2, 3, 4)), ((2, 2, 3), (3,)), ((0, 3), (3, 2)),
        ]
    ),
    Single("MatMulInteger", [image(2, 3, kind=U8), image(3, 4, kind=I8)]),
    Single(
        "QLinearMatMul", [image(2, 3, kind=U8), *SCALED, image(3, 4, kind=U8), *SCALED, *SCALED]
    ),
    Single("Gemm", [image(2, 3), image(3, 4)]),
    Single("Gemm", [image(3, 2), image(4, 3), image(4)], {"transA": 1, "transB": 1}),
    Single("Gemm", [image(2, 3), image(3, 4), image(2, 1)]),
    *(
        Single("Einsum", [image(*shape) for shape in shapes], {"equation": equation})
        for equation, shapes in [
            ("bhdn,bhen->bhde", [(2, 3, 4, 5), (2, 3, 6, 5)]),
            ("ij,jk", [(2, 3), (3, 4)]),
            ("...ij,...jk->...ik", [(5, 2, 3), (5, 3, 4)]),
            ("b i d , b j d -> b i j", [(2, 3, 4), (2, 5, 4)]),
            ("ii->i", [(3, 3)]),
            ("ij->", [(3, 4)]),
            ("i,j,k->ijk", [(2,), (3,), (4,)]),
            ("ij->ji", [(3, 4)]),
        ]
    ),
    Single("Attention", [image(2, 3, 4, 8), image(2, 3, 5, 8), image(2, 3, 5, 6)], {}, 23),
    Single("Attention", [image(2, 4, 24), image(2, 5, 24), image(2, 5, 12)],
           {"q_num_heads": 3, "kv_num_heads": 3}, 23),
    Single("Attention", [image(2, 4, 4, 8), *[image(2, 2, 5, 8)] * 2, image(4, 5)], {}, 23),
    Single("Attention", [image(2, 2, 4, 8), image(2, 2, 5, 8), image(2, 2, 5, 8), None,
                         image(2, 2, 3, 8), image(2, 2, 3, 8)], {}, 23, outputs=4),
    # Windows
    Single("Conv", [X, WEIGHT]),
    Single("Conv", [X, WEIGHT, image(8)], {"pads": [1, 1, 1, 1], "strides": [2, 2]}),
    Single("Conv", [X, image(8, 2, 3, 3)], {"group": 2, "dilations": [2, 1], "pads": [2, 0, 1, 3]}),
    Single("Conv", [X, WEIGHT], {"auto_pad": "SAME_UPPER", "strides": [4, 5]}),
    Single("Conv", [X, WEIGHT], {"auto_pad": "SAME_LOWER", "strides": [1, 2]}),
    Single("Conv", [X, WEIGHT], {"auto_pad": "VALID", "strides": [2, 2]}),
    Single("Conv", [image(2, 3, 9), image(5, 3, 4)], {"kernel_shape": [4]}),
    Single("Conv", [image(1, 2, 5, 5, 5), image(3, 2, 2, 2, 2)]),
    Single("Conv", [image(0, 4, 6, 6), WEIGHT]),
    Single("ConvInteger", [X.astype(U8), WEIGHT.astype(U8)], {"pads": [1, 1, 1, 1]}),
    Single("QLinearConv", [X.astype(U8), *SCALED, WEIGHT.astype(U8), *SCALED, *SCALED]),
    Single(
        "ConvTranspose", [X, image(4, 3, 4, 4), image(3)], {"strides": [2, 2], "pads": [1, 1, 1, 1]}
    ),
    Single("ConvTranspose", [X, WIDE], {"strides": [2, 3], "output_padding": [1, 2], "group": 2}),
    Single("ConvTranspose", [X, WIDE], {"strides": [2, 2], "output_shape": [12, 13]}),
    Single("ConvTranspose", [X, WIDE], {"strides": [2, 2], "auto_pad": "SAME_UPPER"}),
    Single("ConvTranspose", [X, WIDE], {"strides": [2, 2], "auto_pad": "VALID"}),
    Single("ConvTranspose", [X, WIDE], {"dilations": [2, 1]}),
    Single("ConvTranspose", [X, WIDE]),
    *(
        Single(name, [X], {"kernel_shape": [3, 2], **more}, 22)
        for name in ("AveragePool", "MaxPool", "LpPool")
        for more in (
            {},
            {"strides": [2, 3], "pads": [1, 0, 1, 1]},
            {"strides": [2, 2], "pads": [0, 1, 1, 0], "ceil_mode": 1},
            {"auto_pad": "SAME_LOWER", "strides": [2, 2]},
            {"auto_pad": "VALID", "strides": [2, 2]},
            {"dilations": [2, 2]},
        )
    ),
    Single("MaxPool", [X], {"kernel_shape": [5, 5], "pads": [2, 2, 2, 2]}, outputs=2),
    *(Single(f"Global{name}Pool", [X]) for name in ("Average", "Max", "Lp")),
    *(
        Single("Resize", [X, None, fixed(1, 1, *scales, kind=np.float32)], {"mode": mode}, opset)
        for scales in ((2, 2), (1.5, 0.4), (0.3, 3.34))
        for mode, opset in (("nearest", 13), ("linear", 18), ("cubic", 19))
    ),
    Single("Resize", [X, None, None, fixed(2, 4, 9, 3)], {"mode": "nearest"}),
    Single("Resize", [X, None, None, fixed(9, 3)], {"mode": "linear", "axes": [2, -1]}),
    Single("Resize", [X, None, fixed(kind=np.float32), fixed(2, 4, 9, 3)], {}, 13),
    Single("GridSample", [X, image(2, 3, 5, 2)], {}, 16),
    # ONNX Runtime's own
    *(
        Single(operator, inputs, attributes, domain="com.microsoft")
        for operator, inputs, attributes in [
            ("Gelu", [X], {}),
            ("QuickGelu", [X], {}),
            ("FastGelu", [X, ROW], {}),
            ("BiasGelu", [X, ROW], {}),
            ("QuantizeLinear", [X, ONE, scalar(0, np.uint16)], {}),
            ("DequantizeLinear", [X.astype(np.uint16), ONE, scalar(0, np.uint16)], {}),
            ("FusedConv", [X, WEIGHT, image(8)], {"activation": "Relu"}),
            ("FusedGemm", [image(2, 3), image(3, 4), image(4)], {"activation": "Relu"}),
            ("FusedMatMul", [image(2, 4, 3), image(2, 4, 5)], {"transA": 1}),
            ("DynamicQuantizeMatMul", [image(2, 3), image(3, 4, kind=U8), ONE, ZERO], {}),
            ("MatMulIntegerToFloat", [image(2, 3, kind=U8), image(3, 4, kind=U8), ONE, ONE], {}),
        ]
    ),
]  # fmt: skip
