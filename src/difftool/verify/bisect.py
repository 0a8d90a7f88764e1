"""Find the node of a graph at which an error begins, by comparing its values with another graph's.

ONNX Runtime runs both graphs on the same inputs, without fusing nodes. The values that both graphs
have are compared in the order in which they are computed. Two graphs share values if they are two
exports of one checkpoint, or if one was made from the other in another precision. Errors that a
runtime adds when it optimizes a graph cannot be found in this way.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray

from difftool.alone import onnx_runtime
from difftool.bundle import CONDITIONER, STEP, Bundle, step_name
from difftool.diffusion.labels import Labels, lay_out_rows
from difftool.errors import ArtefactError, UsageError, first_line
from difftool.files import temporary_folder
from difftool.runtime.backends.conditioner import Conditioner
from difftool.runtime.comparison import Verification, verified_labels
from difftool.runtime.draws import Draws, row_noise, start_noise
from difftool.verify.sides import TORCH, Side

if TYPE_CHECKING:
    from difftool.export.step import StepModule

Arrays = Mapping[str, NDArray[Any]]

_NETWORK: Final = "network."  # the prefix of the names of a network's weights


@dataclass(frozen=True)
class Culprit:
    """The first node of a file whose output differs too much.

    `error` is the largest |difference| of its output `value` over the reference's largest |value|.
    `value` is number `position` of the `compared` values that both graphs have.
    """

    file: str
    node: str
    operator: str
    value: str
    error: float
    position: int
    compared: int


def bisect(
    suspect: onnx.ModelProto,
    reference: onnx.ModelProto,
    inputs: Arrays,
    tolerance: float,
    *,
    file: str = STEP,
) -> Culprit | None:
    """Return the first node of `suspect` whose output differs by more than `tolerance`, or None.

    `file` is the name of `suspect` in the bundle. UsageError if the graphs share no value.
    """
    pairs = _pairs(suspect, reference)
    if not pairs:
        raise UsageError("the two graphs have no value in common", "export the bundle again")
    found = values_inside(suspect, list(pairs), inputs)
    exact = values_inside(reference, list(pairs.values()), inputs)
    compared = [
        (name, found[name], exact[other])
        for name, other in pairs.items()
        if found[name].dtype.kind == exact[other].dtype.kind == "f"
    ]
    nodes = _producers(suspect)
    for position, (name, one, other) in enumerate(compared, start=1):
        error = _error(one, other)
        if not error <= tolerance:
            node = nodes[name]
            return Culprit(file, node.name, node.op_type, name, error, position, len(compared))
    return None


def bisect_sides(
    bundle: Bundle, candidate: Side, reference: Side, result: Verification, *, seed: int = 0
) -> Culprit | None:
    """Return the first node that is out of bounds at the worst row of a verification.

    If one side is torch, its module is exported again as the reference graph. None means that no
    node of the graph causes the error, so the backend does. UsageError if both run the same graph.
    """
    sides = candidate, reference
    files = [_file(bundle, side) for side in sides]
    if files[0] == files[1]:
        raise UsageError(
            f"both sides run {files[0]}, and `bisect` compares two different graphs",
            "compare with the checkpoint, or with another precision",
        )
    suspect = files[0] or files[1]
    assert suspect is not None
    if None in files:
        from difftool.verify.eager import Eager

        (module,) = (side.backend.module for side in sides if isinstance(side.backend, Eager))
        references = _exported(module, suspect)
    else:
        references = {suspect: _graph(bundle, files[1] or STEP)}
    labels = verified_labels(bundle.spec, result.samples, candidate.backend, reference.backend)
    inputs = _inputs(bundle, reference, result, labels, seed)
    for file, exact in references.items():
        culprit = bisect(_graph(bundle, file), exact, inputs, result.step_tolerance, file=file)
        if culprit is not None:
            return culprit
    return None


def _pairs(suspect: onnx.ModelProto, reference: onnx.ModelProto) -> dict[str, str]:
    """Return the values that both graphs have, in running order: name -> name in the other graph.

    The exporter numbers the names. If a name belongs to different operators in the two graphs, they
    were exported differently and their names cannot be trusted. Then only nodes that have a weight
    of the network are matched, by the name of that weight.
    """
    nodes, others = _producers(suspect), _producers(reference)
    shared = [name for name in nodes if name in others]
    if all(nodes[name].op_type == others[name].op_type for name in shared):
        return {name: name for name in shared}
    here, there = _by_weights(suspect), _by_weights(reference)
    return {name: there[key] for key, name in here.items() if key in there}


def _producers(graph: onnx.ModelProto) -> dict[str, onnx.NodeProto]:
    """Return the node of every value, in the order in which they are computed."""
    return {output: node for node in graph.graph.node for output in node.output if output}


def _by_weights(graph: onnx.ModelProto) -> dict[tuple[str, ...], str]:
    """Return the first output of each node that is the only one with its operator and weights."""
    weights = {value.name for value in graph.graph.initializer if value.name.startswith(_NETWORK)}
    found: dict[tuple[str, ...], list[str]] = {}
    for node in graph.graph.node:
        own = tuple(name for name in node.input if name in weights)
        if own:
            found.setdefault((node.op_type, *own), []).append(node.output[0])
    return {key: names[0] for key, names in found.items() if len(names) == 1}


def _file(bundle: Bundle, side: Side) -> str | None:
    """Return the name of the step graph that a side runs; None for torch, which runs none."""
    if side.backend.name == TORCH:
        return None
    own = step_name(side.precision)
    return own if own in bundle.manifest.files else STEP


def _exported(module: "StepModule", suspect: str) -> dict[str, onnx.ModelProto]:
    """Export a step module; return its graphs by the suspects' file names, in running order."""
    from difftool.export.onnx import export_graphs

    with temporary_folder() as folder:
        export_graphs(module, folder)
        made = {CONDITIONER: folder / CONDITIONER, suspect: folder / STEP}
        return {file: onnx.load(path) for file, path in made.items() if path.exists()}


def _graph(bundle: Bundle, file: str) -> onnx.ModelProto:
    return onnx.load_from_string(bundle.graph(file).data)


def _inputs(
    bundle: Bundle, reference: Side, result: Verification, labels: Labels | None, seed: int
) -> dict[str, NDArray[Any]]:
    """Return the inputs of the conditioner and the step graph at the worst row."""
    program, n, spec = result.program, result.samples, bundle.spec
    draws = Draws(seed, np.arange(n), spec.shape)
    rows = lay_out_rows(program, spec, n, labels)
    batch = reference.backend.batch(program, n, labels)
    batch.start(start_noise(program, draws))
    zeros = np.zeros((n, *spec.shape), np.float32)
    noise = zeros
    for row, drawn in enumerate(row_noise(program, draws)):
        noise = zeros if drawn is None else drawn
        if row == result.worst_row:
            break
        batch.step(drawn)
    inputs: dict[str, NDArray[Any]] = {
        "x": np.array(batch.x),
        "history": np.array(batch.history),
        "row": rows.first + result.worst_row,
        "noise": noise,
        "table": rows.table.astype(np.float32),
        "known": zeros,
        "mask": zeros,
        "cond": rows.conds.astype(np.float32),
        "cond_table": Conditioner(bundle).table(rows),
    }
    if rows.labels is not None:
        inputs["label"] = rows.labels
    return inputs


def values_inside(
    graph: onnx.ModelProto, names: list[str], inputs: Arrays
) -> dict[str, NDArray[Any]]:
    """Return values inside a graph, which runs without optimizations."""
    runtime = onnx_runtime()
    shown = onnx.ModelProto()
    shown.CopyFrom(graph)
    have = {output.name for output in graph.graph.output}
    shown.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in have)
    taken = {value.name for value in graph.graph.input}
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = runtime.InferenceSession(
            shown.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        feed = {name: value for name, value in inputs.items() if name in taken}
        return dict(zip(names, session.run(names, feed), strict=True))
    except Exception as error:  # ONNX Runtime's errors share no base of their own
        raise ArtefactError(
            f"ONNX Runtime cannot run the graph to bisect: {first_line(error)}",
            "bisect a graph in fp32, fp16 or int8",
        ) from error


def _error(found: NDArray[Any], exact: NDArray[Any]) -> float:
    """Return the largest |difference| over the largest |exact|; nan if only one is not finite."""
    if found.shape != exact.shape:
        return np.inf
    one, other = found.astype(np.float64), exact.astype(np.float64)
    differ = ~((one == other) | (np.isnan(one) & np.isnan(other)))
    if not differ.any():
        return 0.0
    with np.errstate(invalid="ignore", divide="ignore"):
        scale = np.abs(other[np.isfinite(other)]).max(initial=0.0)
        return float(np.abs(one - other)[differ].max() / scale)
