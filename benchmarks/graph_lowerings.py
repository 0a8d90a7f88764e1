"""Which lowerings of the step graph's operators run fastest, on the runtimes that are installed.

Each network's step graph is exported in the chosen lowerings, as PyTorch's exporter has it on its
own, and in the chosen ones but for one. All take turns in one process; a ratio above 1 is slower
than the chosen ones. With one thread it is the processor's time that counts, which others on the
machine disturb less.

What starting a session takes is measured, too: of the step graph, and of the copy that ONNX Runtime
saves of what it made of it.
"""

import importlib.util
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx_ir as ir
from common import inside_torch
from common.inside import Column
from common.lowerings import (
    affine_by_mul_and_add,
    norm_by_layer_norm,
    norm_by_reductions,
    upsampling_by_transposed_conv,
)
from common.models import CASES, untrained
from common.report import Figure, finish, parser, timed
from common.sessions import options as session_options
from common.sessions import session
from common.timing import interleave, ratios, repeated
from onnxruntime import GraphOptimizationLevel, SessionOptions

from difftool.export.lowerings import CHOSEN, Lowerings

Arrays = dict[str, np.ndarray]
Run = Callable[[], list[np.ndarray]]

AGREEMENT_LIMIT = 1e-5  # of the largest number; a time only counts for the same computation
BEST = 0.97  # no other lowering may be faster than the chosen one by more, in ONNX Runtime
ROUND_SECONDS = 0.1

ALL_CHOSEN, OWN = "chosen lowerings", "exporter's own"
EXPORTERS = {  # the exporter's lowering of one operator -> what tells that a network has it
    "scaled_dot_product_attention": "Softmax",
    "elu": "Elu",
    "softplus": "Softplus",
}
GROUP_NORMS = {
    "layer norm": norm_by_layer_norm,
    "norm by reductions": norm_by_reductions,
    "affine map by Mul and Add": affine_by_mul_and_add,
}

NETWORKS: Mapping[str, Callable[[Path], Path]] = {
    "ddpm-mnist": CASES["ddpm-mnist"].checkpoint,
    "cifar10": CASES["cifar10"].checkpoint,
    "ncsnv2": untrained("ncsnv2-cifar10", (3, 32, 32), channels=32),
    "toy": untrained("toy", (2,)),
}
BATCHES = {"ddpm-mnist": (1, 16), "cifar10": (1, 4), "ncsnv2": (1,), "toy": (1024,)}


def main() -> int:
    arguments = parser(__doc__, rounds=15, work=True)
    arguments.add_argument("--network", choices=NETWORKS, action="append", help="all by default")
    arguments.add_argument("--threads", type=int, default=1)
    options = arguments.parse_args()

    figures: list[Figure] = []
    for name in options.network or NETWORKS:
        work = options.work / "lowerings"
        loaded = inside_torch.load_checkpoint(NETWORKS[name](work / name))
        graphs = export_all(loaded, work / f"{name}-graphs")
        for batch in BATCHES[name]:
            for runtime, runs in opened(graphs, inputs(loaded, batch), options.threads).items():
                label = f"{name}, batch {batch}, {runtime}"
                figures += compare(label, runs, options.threads, options.rounds)
        figures += starts(name, graphs[ALL_CHOSEN], options.rounds)
    return finish("graph_lowerings", figures, options)


def export_all(loaded: inside_torch.Checkpoint, folder: Path) -> dict[str, Path]:
    """Export the step graph in each lowering that its network has a use for, by name."""
    folder.mkdir(parents=True, exist_ok=True)
    module = inside_torch.StepModule(loaded.network, loaded.spec)

    def export(name: str, lowerings: Lowerings) -> Path:
        path = folder / f"{name}.onnx"
        inside_torch.export_step(module, path, lowerings)
        return path

    def rewritten(source: Path, name: str, rewrite: Callable[[ir.Graph], None]) -> None:
        model = ir.load(source)
        rewrite(model.graph)
        found[name] = folder / f"{name.replace(' ', '_')}.onnx"
        ir.save(model, found[name])

    own = export("own", Lowerings(translations={}, rewrites=()))
    chosen = export("chosen", CHOSEN)
    found = {ALL_CHOSEN: chosen, OWN: own}
    operators = {node.op_type for node in ir.load(own).graph}
    for function, mark in EXPORTERS.items():
        if mark in operators:
            kept = {f: t for f, t in CHOSEN.translations.items() if f".{function}." not in str(f)}
            lowerings = Lowerings(translations=kept, rewrites=CHOSEN.rewrites)
            found[f"exporter's {mark}"] = export(mark, lowerings)
    if any(node.op_type == "BatchNormalization" for node in ir.load(chosen).graph):
        doubled = export("doubled", Lowerings(translations=CHOSEN.translations, rewrites=()))
        found["doubled images"] = doubled
        rewritten(doubled, "transposed convolution", upsampling_by_transposed_conv)
        for name, rewrite in GROUP_NORMS.items():
            rewritten(chosen, name, rewrite)
    return found


def inputs(loaded: inside_torch.Checkpoint, batch: int) -> Arrays:
    """Make inputs of a step in which every term of the row counts."""
    rng = np.random.default_rng(0)
    shape = (batch, *loaded.spec.shape)
    table = np.full((4, Column.HISTORY + 1), 0.1)
    table[:, [Column.CLIP_LOW, Column.CLIP_HIGH]] = -3, 3
    table[:, [Column.C_IN, Column.COND]] = 1
    width = inside_torch.conditioner_width(inside_torch.StepModule(loaded.network, loaded.spec))
    arrays = {
        "x": rng.normal(size=shape),
        "history": rng.normal(size=(1, *shape)),
        "noise": rng.normal(size=shape),
        "table": table,
        "cond_table": rng.normal(size=(2, width)),
    }
    floats = {name: array.astype(np.float32) for name, array in arrays.items()}
    return {**floats, "row": np.arange(batch) % 4}


def opened(graphs: Mapping[str, Path], feeds: Arrays, threads: int) -> dict[str, dict[str, Run]]:
    """Open runtime -> lowering -> what runs it: all in ONNX Runtime, the first two in the others.

    Without blocked layouts ONNX Runtime is what it is on Arm and in WebAssembly.
    """
    first = dict(list(graphs.items())[:2])
    found = {
        runtime: {name: in_onnxruntime(path, feeds, threads, off) for name, path in paths.items()}
        for runtime, paths, off in (
            ("onnxruntime", graphs, ""),
            ("without blocks", first, "NchwcTransformer"),
        )
    }
    if importlib.util.find_spec("openvino"):
        openvino = {name: in_openvino(path, feeds, threads) for name, path in first.items()}
        found["openvino"] = openvino
    return found


def in_onnxruntime(path: Path, feeds: Arrays, threads: int, off: str) -> Run:
    """Open a graph in ONNX Runtime, with one of its optimizers off."""
    settings = session_options(threads)
    if off:
        settings.add_session_config_entry("optimization.disable_specified_optimizers", off)
    graph = session(path, settings)
    taken = {node.name: feeds[node.name] for node in graph.get_inputs()}
    return lambda: graph.run(None, taken)


def in_openvino(path: Path, feeds: Arrays, threads: int) -> Run:
    """Open a graph in OpenVINO."""
    import openvino

    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads}
    model = openvino.compile_model(str(path), "CPU", settings)
    request = model.create_infer_request()
    taken = {port.any_name: feeds[port.any_name] for port in model.inputs}
    return lambda: list(request.infer(taken).values())


def compare(label: str, runs: Mapping[str, Run], threads: int, rounds: int) -> list[Figure]:
    """Compare all lowerings with the chosen ones: first what they give, then their times."""
    expected = runs[ALL_CHOSEN]()
    worst = max(difference(run(), expected) for run in runs.values())
    begin = time.perf_counter()
    runs[ALL_CHOSEN]()
    calls = max(1, round(ROUND_SECONDS / (time.perf_counter() - begin)))

    clock = time.process_time if threads == 1 else time.perf_counter
    repeats = {lowering: repeated(run, calls) for lowering, run in runs.items()}
    seconds = interleave(repeats, rounds=rounds, clock=clock)
    base = seconds[ALL_CHOSEN]
    limit = BEST if label.endswith("onnxruntime") else None
    others = [lowering for lowering in seconds if lowering != ALL_CHOSEN]
    return [
        Figure(f"{label}: difference", [worst], at_most=AGREEMENT_LIMIT),
        *timed({f"{label}: {ALL_CHOSEN}": base}, "ms", 1e3 / calls),
        *(
            Figure(f"{label}: {name} / chosen", ratios(seconds[name], base), at_least=limit)
            for name in others
        ),
    ]


def difference(found: list[np.ndarray], expected: list[np.ndarray]) -> float:
    """Measure the largest of all outputs, of the largest number in the same output."""
    pairs = zip(found, expected, strict=True)
    return max(float(np.abs(a - b).max() / max(np.abs(b).max(), 1)) for a, b in pairs)


def starts(name: str, path: Path, rounds: int) -> list[Figure]:
    """Time the opening of a session of the graph, and of ONNX Runtime's optimized copy of it."""
    copy = path.with_name("optimized.onnx")
    saving = session_options(1)
    saving.optimized_model_filepath = str(copy)
    session(path, saving)
    as_it_is = session_options(1)
    as_it_is.graph_optimization_level = GraphOptimizationLevel.ORT_DISABLE_ALL

    def opening(file: Path, options: SessionOptions) -> Callable[[], object]:
        return lambda: session(file, options)

    candidates = {
        f"{name}: session of the step graph": opening(path, session_options(1)),
        f"{name}: session of the copy": opening(copy, as_it_is),
    }
    seconds = interleave(candidates, rounds=rounds, clock=time.process_time)
    return timed(seconds, "ms", 1e3)


if __name__ == "__main__":
    sys.exit(main())
