"""Write `sampler.onnx`, a graph with these inputs and outputs.

    in : seed uint64 [1], n int64 [1]
         optional, for all models: first_sample int64 [1], table [R, columns], cond [U], start [3]
         optional, to run only some rows: row and rows int64 [1], x [N, *S], history [K, N, *S]
         optional, for a model with classes: label int64 [1 or N]
         optional, for a step graph with "guidance": guidance_scale [1]
         optional, for a step graph with "known": known and mask [1 or N, *S]
    out: samples [N, *S], history_next [K, N, *S], denoised [N, *S]
         before them, for a model of images: images uint8 [N, H, W, C]

Optional inputs have ONNX's optional type. If a binding demands every input, an empty tensor stands
for a missing one. To go on after some rows, feed `samples` and `history_next` as `x` and `history`.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import onnx
import onnx_ir as ir

from difftool.bundle import CONDITIONER, Bundle
from difftool.compile.sampler_onnx.labels import Laid, lay_out
from difftool.compile.sampler_onnx.noise import Noise
from difftool.compile.sampler_onnx.ops import Ops
from difftool.compile.sampler_onnx.rows import State, run_rows
from difftool.diffusion.columns import Column
from difftool.diffusion.features import Feature
from difftool.diffusion.packed import graph_inputs
from difftool.diffusion.program import MAX_ROWS, Program
from difftool.diffusion.spec import ModelSpec
from difftool.errors import UsageError
from difftool.files import file_sha256, write_atomic
from difftool.outputs import require_free
from difftool.preflight import GUIDED, OnnxFile
from difftool.runtime.images import is_image
from difftool.runtime.shipped import open_bundle

FORMAT: Final = 1

Plain = Mapping[str, Sequence[int | str]]
# For hosts that know no optionals, such as Triton's backend for ONNX Runtime.
PLAIN: Final[Plain] = {"first_sample": [1], "label": ["labels"], "guidance_scale": [1]}


@dataclass(frozen=True)
class PortableSampler:
    """A `sampler.onnx`: its file with size and sha256, its default program, and its precision."""

    path: Path
    size: int
    sha256: str
    program: Program
    precision: str


def portable(
    bundle: Bundle | Path | str,
    out: Path | str = "sampler.onnx",
    *,
    program: Program | None = None,
    precision: str = "fp32",
    force: bool = False,
) -> PortableSampler:
    """Write the whole sampler of a bundle as one ONNX graph that any ONNX Runtime can run.

    Args:
        bundle: a bundle, its folder, or the name of a shipped model.
        out: the file to write; `force` replaces it.
        program: the program that the graph runs by default; if None, the bundle's own.
        precision: precision of the step graph; the bundle must have it.

    Raises:
        UsageError: `out` exists, or the program needs a feature that the step graph lacks, or
            starts from data.
        ArtefactError: the bundle has no step graph in that precision.

    Examples:
        >>> made = difftool.compile.portable("digits.bundle", "sampler.onnx")
        >>> made.program.nfe
        20
    """
    path = Path(out)
    require_free(path, force=force)
    opened = open_bundle(bundle)
    program = program or opened.default_program()
    graph = portable_sampler(opened, program, precision)
    write_atomic(path, graph)
    return PortableSampler(path, len(graph), file_sha256(path), program, precision)


def portable_sampler(
    bundle: Bundle, program: Program, precision: str = "fp32", *, inputs: Plain | None = None
) -> bytes:
    """Return the bytes of a bundle's `sampler.onnx`; raise as `portable` does.

    With `inputs`, such as PLAIN, it has none of ONNX's optional type: besides seed and n it has
    these alone, as tensors that may be left out, and no outputs but samples and images.
    """
    if program.adaptive and Feature.NORMS not in bundle.features:
        raise UsageError(
            "this bundle's step graph has no norms", "export it again: `features=norms`"
        )
    step = _parsed(bundle.step(precision))
    has_one = CONDITIONER in bundle.manifest.files
    conditioner = _parsed(bundle.graph(CONDITIONER)) if has_one else None
    opset = max(model.opset_imports[""] for model in (step, conditioner) if model is not None)
    graph = _graph(bundle, program, step, conditioner, inputs)
    graph.opset_imports[""] = opset
    model = ir.Model(
        graph,
        ir_version=step.ir_version,
        producer_name="difftool",
        metadata_props={
            "difftool.format": str(FORMAT),
            "difftool.spec": json.dumps(bundle.spec.to_dict()),
            "difftool.program": program.name,
            "difftool.precision": precision,
        },
    )
    return ir.to_proto(model).SerializeToString()


def _parsed(file: OnnxFile) -> ir.Model:
    return ir.from_proto(onnx.load_from_string(file.data))


def _graph(
    bundle: Bundle,
    program: Program,
    step: ir.Model,
    conditioner: ir.Model | None,
    plain: Plain | None,
) -> ir.Graph:
    ops, spec, features = Ops(plain=plain), bundle.spec, bundle.features
    seed = ops.required("seed", ir.DataType.UINT64)
    n = ops.required("n", ir.DataType.INT64)
    first_sample = ops.optional("first_sample", ops.ints(0))
    own = {name: ops.constant(a, a.dtype) for name, a in graph_inputs(program).items()}
    table = ops.optional("table", own["table"])
    cond = ops.optional("cond", own["cond"])
    start = ops.optional("start", own["start"])

    indices = ops("Add", ops.numbers(ops.ints(0), n), first_sample)
    guided = Feature.GUIDANCE in features
    noise = Noise(ops, seed, indices, spec.shape)
    known, held = _known(ops, spec) if Feature.KNOWN in features else ({}, None)
    laid = lay_out(ops, indices, noise, table, cond, spec, held=held, guided=guided)
    begin, end = _span(ops, ops.size(table, 0))
    state = _state(ops, laid, begin, _start(ops, noise, start))
    fixed = {
        "table": laid.table,
        "cond_table": _cond_table(ops, conditioner, laid.cond, laid.label),
    }
    if laid.guided is not None:
        fixed[GUIDED] = laid.guided
    for name, given in known.items():
        # In the step graph all batch sizes are the same, so [1, *S] must be expanded first.
        fixed[name] = ops("Expand", given, ops("Shape", state.x))
    state = run_rows(ops, step, noise, state, begin, end, fixed, spec.shape)
    outputs = [
        _output(ops, "samples", state.x, "n", *spec.shape),
        _output(ops, "history_next", state.history, "slots", "n", *spec.shape),
        _output(ops, "denoised", state.denoised, "n", *spec.shape),
    ]
    images = [_images(ops, state.x, spec)] if is_image(spec) else []
    return ops.graph("sampler", [*images, *(outputs if plain is None else outputs[:1])])


def _known(ops: Ops, spec: ModelSpec) -> tuple[dict[str, ir.Value], ir.Value]:
    """Add the inputs `known` and `mask`; also tell whether the mask holds anything, bool [1]."""
    nothing = ops.constant(np.zeros((1, *spec.shape)), np.float32)
    given = {name: ops.optional(name, nothing) for name in ("known", "mask")}
    most = ops("ReduceMax", ops("Reshape", given["mask"], ops.ints(-1)), keepdims=1)
    return given, ops("Greater", most, ops.floats(0))


def _span(ops: Ops, length: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Return the first row to run and the end, int64 [1]: those of `row` and `rows`, or all."""
    zero = ops.ints(0)
    row = ops.optional("row", zero)
    rows = ops.optional("rows", ops.ints(MAX_ROWS))
    begin = ops("Min", ops("Max", row, zero), length)
    return begin, ops("Min", ops("Add", begin, ops("Max", rows, zero)), length)


def _state(ops: Ops, laid: Laid, begin: ir.Value, start: ir.Value) -> State:
    """Return the state that the run begins with: the start, or the inputs `x` and `history`."""
    slots = ops("Sub", ops.size(laid.table, 1), ops.ints(Column.HISTORY))
    like_x = ops("Shape", start)
    like_history = ops("Concat", slots, like_x, axis=0)
    nothing = ops("ConstantOfShape", like_history)
    start.dtype = nothing.dtype = ir.DataType.FLOAT
    # Reshape refuses inputs of a wrong size, which might be broadcast later.
    x = ops("Reshape", ops.optional("x", start), like_x)
    history = ops("Reshape", ops.optional("history", nothing), like_history)
    return State(x, history, ops("Add", laid.first_row, begin), x)


def _start(ops: Ops, noise: Noise, start: ir.Value) -> ir.Value:
    """Return x before the first row: start[0] + start[1] * uniform + start[2] * normal, [N, *S]."""
    first = ops.ints(0)
    offset, width, scale = ops.several("Split", 3, start, axis=0, num_outputs=3)
    uniform = ops("Squeeze", noise.uniform(ops, first), first)
    normal = ops("Squeeze", noise.normal(ops, first), first)
    level = ops("Add", offset, ops("Mul", width, uniform))
    return ops("Add", level, ops("Mul", scale, normal))


def _cond_table(
    ops: Ops, conditioner: ir.Model | None, cond: ir.Value, label: ir.Value | None
) -> ir.Value:
    """Return the conditioner's output for all conds, [U, C]; C is 0 without a conditioner."""
    if conditioner is None:
        return ops("ConstantOfShape", ops("Concat", ops("Shape", cond), ops.ints(0), axis=0))
    inputs = {"cond": cond} if label is None else {"cond": cond, "label": label}
    return ops.splice(conditioner, "conditioner.", **inputs)[0]


def _output(ops: Ops, name: str, result: ir.Value, *shape: int | str) -> ir.Value:
    """Return a float32 output of the graph."""
    output = ops("Identity", result)
    output.name, output.dtype, output.shape = name, ir.DataType.FLOAT, ir.Shape(shape)
    return output


def _images(ops: Ops, samples: ir.Value, spec: ModelSpec) -> ir.Value:
    """Return pixels uint8 [N, H, W, C], as `difftool.runtime.images.to_uint8` makes them."""
    assert spec.data_range is not None
    low, high = spec.data_range
    levels = ops("Mul", ops("Sub", samples, ops.floats(low)), ops.floats(255 / (high - low)))
    zero, most = ops.constant(0, np.float32), ops.constant(255, np.float32)
    whole = ops("Cast", ops("Clip", ops("Round", levels), zero, most), to=ir.DataType.UINT8)
    images = ops("Transpose", whole, perm=[0, 2, 3, 1])
    channels, *size = spec.shape
    images.name, images.dtype = "images", ir.DataType.UINT8
    images.shape = ir.Shape(["n", *size, channels])
    return images
