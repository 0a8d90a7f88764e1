"""Which forms of the step graph's operators run fastest, on the runtimes that are installed here.

Each network's step graph is exported in the chosen forms, as PyTorch's exporter has it on its own,
and in the chosen forms but for one. All take turns in one process; a ratio above 1 is slower than
the chosen forms. With one thread it is the processor's time that counts, which others on the
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
import onnxruntime
from _forms import (
    affine_by_mul_and_add,
    norm_by_layer_norm,
    norm_by_reductions,
    upsampling_by_transposed_conv,
)
from _models import write_untrained
from _report import ROOT, Figure, finish, parser
from _timing import interleave, ratios

from difftool.diffusion.columns import Column
from difftool.export.forms import CHOSEN, Forms
from difftool.export.onnx import conditioner_width, export_step, step_module
from difftool.networks.trained import Checkpoint, load_checkpoint

Arrays = dict[str, np.ndarray]
Run = Callable[[], list[np.ndarray]]
Open = Callable[[Path, Arrays, int], Run]

AGREEMENT_LIMIT = 1e-5  # of the largest number; a time only counts for the same computation
BEST = 0.97  # no other form may be faster than the chosen one by more, in ONNX Runtime
ROUND_SECONDS = 0.1

CHOSEN_FORMS, OWN = "chosen forms", "exporter's own"
EXPORTERS = {  # the exporter's form of one operator -> what tells that a network has it
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
    "ddpm-mnist": lambda work: ROOT / "checkpoints/ddpm-mnist",
    "cifar10": lambda work: write_untrained(
        work / "cifar10", "ddpm-cifar10", (3, 32, 32), {"dropout": 0.0}
    ),
    "ncsnv2": lambda work: write_untrained(
        work / "ncsnv2", "ncsnv2-cifar10", (3, 32, 32), {"channels": 32}
    ),
    "toy": lambda work: write_untrained(work / "toy", "toy", (2,), {}),
}
BATCHES = {"ddpm-mnist": (1, 16), "cifar10": (1, 4), "ncsnv2": (1,), "toy": (1024,)}


def main() -> int:
    arguments = parser(__doc__)
    arguments.add_argument("--network", choices=NETWORKS, action="append", help="all by default")
    arguments.add_argument("--rounds", type=int, default=15)
    arguments.add_argument("--threads", type=int, default=1)
    arguments.add_argument("--work", type=Path, default=ROOT / "runs/bench", metavar="FOLDER")
    options = arguments.parse_args()

    figures: list[Figure] = []
    for name in options.network or NETWORKS:
        work = options.work / "forms"
        loaded = load_checkpoint(NETWORKS[name](work))
        graphs = export_all(loaded, work / f"{name}-graphs")
        for batch in BATCHES[name]:
            for runtime, sides in opened(graphs, inputs(loaded, batch), options.threads).items():
                label = f"{name}, batch {batch}, {runtime}"
                figures += compare(label, sides, options.threads, options.rounds)
        figures += starts(name, graphs[CHOSEN_FORMS], options.rounds)
    return finish(
        "graph_forms", figures, {"threads": options.threads, "rounds": options.rounds}, options.out
    )


def export_all(loaded: Checkpoint, folder: Path) -> dict[str, Path]:
    """The step graph in each form that its network has a use for, by name."""
    folder.mkdir(parents=True, exist_ok=True)
    module = step_module(loaded.network, loaded.spec)
    width = conditioner_width(loaded.network, loaded.spec)

    def export(name: str, forms: Forms) -> Path:
        path = folder / f"{name}.onnx"
        export_step(module, loaded.spec, width, path, forms)
        return path

    def rewritten(name: str, source: Path, rewrite: Callable[[ir.Graph], None]) -> Path:
        model = ir.load(source)
        rewrite(model.graph)
        ir.save(model, folder / f"{name}.onnx")
        return folder / f"{name}.onnx"

    own = export("own", Forms(translations={}, rewrites=()))
    chosen = export("chosen", CHOSEN)
    found = {CHOSEN_FORMS: chosen, OWN: own}
    operators = {node.op_type for node in ir.load(own).graph}
    for function, mark in EXPORTERS.items():
        if mark in operators:
            kept = {f: t for f, t in CHOSEN.translations.items() if f".{function}." not in str(f)}
            forms = Forms(translations=kept, rewrites=CHOSEN.rewrites)
            found[f"exporter's {mark}"] = export(mark, forms)
    if any(node.op_type == "BatchNormalization" for node in ir.load(chosen).graph):
        doubled = export("doubled", Forms(translations=CHOSEN.translations, rewrites=()))
        found["doubled images"] = doubled
        found["transposed convolution"] = rewritten(
            "transposed", doubled, upsampling_by_transposed_conv
        )
        for name, rewrite in GROUP_NORMS.items():
            found[name] = rewritten(name, chosen, rewrite)
    return found


def inputs(loaded: Checkpoint, batch: int) -> Arrays:
    """Inputs of a step in which every term of the row counts."""
    rng = np.random.default_rng(0)
    shape = (batch, *loaded.spec.shape)
    table = np.full((4, Column.HISTORY + 1), 0.1)
    table[:, [Column.CLIP_LOW, Column.CLIP_HIGH]] = -3, 3
    table[:, [Column.C_IN, Column.COND]] = 1
    width = conditioner_width(loaded.network, loaded.spec)
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
    """Runtime -> form -> what runs it. All forms run in ONNX Runtime, the first two in the others.

    Without blocked layouts ONNX Runtime is what it is on Arm and in WebAssembly.
    """
    first = dict(list(graphs.items())[:2])
    runs: dict[str, tuple[Mapping[str, Path], Open]] = {
        "onnxruntime": (graphs, open_onnxruntime),
        "without blocks": (first, open_without_blocks),
    }
    if importlib.util.find_spec("openvino"):
        runs["openvino"] = (first, open_openvino)
    return {
        name: {form: opener(path, feeds, threads) for form, path in paths.items()}
        for name, (paths, opener) in runs.items()
    }


def open_onnxruntime(path: Path, feeds: Arrays, threads: int, without: str = "") -> Run:
    session = onnxruntime.InferenceSession(
        str(path), session_options(threads, without), providers=["CPUExecutionProvider"]
    )
    taken = {node.name: feeds[node.name] for node in session.get_inputs()}
    return lambda: session.run(None, taken)


def open_without_blocks(path: Path, feeds: Arrays, threads: int) -> Run:
    return open_onnxruntime(path, feeds, threads, "NchwcTransformer")


def open_openvino(path: Path, feeds: Arrays, threads: int) -> Run:
    import openvino

    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads}
    model = openvino.compile_model(str(path), "CPU", settings)
    request = model.create_infer_request()
    taken = {port.any_name: feeds[port.any_name] for port in model.inputs}
    return lambda: list(request.infer(taken).values())


def session_options(threads: int, without: str = "") -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    if without:
        options.add_session_config_entry("optimization.disable_specified_optimizers", without)
    return options


def compare(label: str, sides: Mapping[str, Run], threads: int, rounds: int) -> list[Figure]:
    """Ratios of all forms to the chosen ones, after their results have been compared."""
    expected = sides[CHOSEN_FORMS]()
    worst = max(difference(run(), expected) for run in sides.values())
    begin = time.perf_counter()
    sides[CHOSEN_FORMS]()
    calls = max(1, round(ROUND_SECONDS / (time.perf_counter() - begin)))

    def repeated(run: Run) -> Callable[[], None]:
        def side() -> None:
            for _ in range(calls):
                run()

        return side

    clock = time.process_time if threads == 1 else time.perf_counter
    repeats = {form: repeated(run) for form, run in sides.items()}
    seconds = interleave(repeats, rounds=rounds, clock=clock)
    base = seconds[CHOSEN_FORMS]
    strict = label.endswith("onnxruntime")
    return [
        Figure(name=f"{label}: difference", values=[worst], at_most=AGREEMENT_LIMIT),
        Figure(name=f"{label}: {CHOSEN_FORMS}", values=[1e3 * s / calls for s in base], unit="ms"),
        *(
            Figure(
                name=f"{label}: {form} / chosen",
                values=ratios(values, base),
                at_least=BEST if strict else None,
            )
            for form, values in seconds.items()
            if form != CHOSEN_FORMS
        ),
    ]


def difference(found: list[np.ndarray], expected: list[np.ndarray]) -> float:
    """The largest of all outputs, of the largest number in the same output."""
    pairs = zip(found, expected, strict=True)
    return max(float(np.abs(a - b).max() / max(np.abs(b).max(), 1)) for a, b in pairs)


def starts(name: str, path: Path, rounds: int) -> list[Figure]:
    """Seconds to open a session of the graph, and of ONNX Runtime's optimized copy of it."""
    copy = path.with_name("optimized.onnx")
    saving = session_options(1)
    saving.optimized_model_filepath = str(copy)
    onnxruntime.InferenceSession(str(path), saving, providers=["CPUExecutionProvider"])
    as_it_is = session_options(1)
    as_it_is.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL

    def opening(file: Path, options: onnxruntime.SessionOptions) -> Callable[[], object]:
        return lambda: onnxruntime.InferenceSession(
            str(file), options, providers=["CPUExecutionProvider"]
        )

    sides = {"step graph": opening(path, session_options(1)), "copy": opening(copy, as_it_is)}
    seconds = interleave(sides, rounds=rounds, clock=time.process_time)
    return [
        Figure(name=f"{name}: session of the {side}", values=[1e3 * s for s in found], unit="ms")
        for side, found in seconds.items()
    ]


if __name__ == "__main__":
    sys.exit(main())
