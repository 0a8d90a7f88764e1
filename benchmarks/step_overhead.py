"""What a sampling step costs above the bare network, at batch 1.

Three candidates take turns in one process, with the same threads:

- the sampling loop, that of `Model.sample`: noise, the step graph, the bookkeeping
- the bare network: exported as network(x, timestep), and `session.run`; nothing is sampled
- the bare step graph: `session.run` of the bundle's step.onnx on inputs that stay as they are
"""

import itertools
import sys
import tempfile
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
from common.figures import Figure, timed
from common.inside import STEP, Reference
from common.inside_torch import load_checkpoint
from common.machine import ROOT
from common.models import export_network
from common.operators import step_inputs
from common.parity import relative_error
from common.report import finish, parser
from common.sessions import options as session_options
from common.sessions import session
from common.timing import Turn, interleave, ratios

import difftool
from difftool import Model, Program

TO_NETWORK, TO_GRAPH = "loop / bare network", "loop / bare step graph"
RATIO_LIMIT = 1.05
AGREEMENT_LIMIT = 1e-4  # of the state's scale; a time only counts for the same computation


def main() -> int:
    arguments = parser(__doc__, rounds=20, threads=True)
    arguments.add_argument("--model", default="ddpm-mnist", help="name, or folder of a bundle")
    arguments.add_argument("--checkpoint", type=Path, help="where it came from")
    arguments.add_argument("--steps", type=int, default=250, help="in each round")
    options = arguments.parse_args()

    checkpoint = options.checkpoint or ROOT / "checkpoints" / options.model
    model = difftool.load(options.model, threads=options.threads)
    figures = measure(model, checkpoint, options.threads, options.rounds, options.steps)
    setup = {
        "model": Path(options.model).name,
        "program": model.default_program().name,
        "threads": options.threads or "all",
        "rounds": options.rounds,
        "steps": options.steps,
    }
    return finish("step_overhead", figures, setup, options.out)


def measure(
    model: Model, checkpoint: Path, threads: int | None, rounds: int, steps: int
) -> list[Figure]:
    """Say whether the candidates agree, what each takes, and the ratios."""
    program = model.default_program()
    network = bare_session(checkpoint, threads)
    graph = session(model.bundle.file(STEP), session_options(threads))
    candidates = {
        "sampling loop": sampling(model, program, steps),
        "bare network": repeated(network, network_inputs(model), steps),
        "bare step graph": repeated(graph, step_inputs(graph, model.bundle, 1), steps),
    }
    seconds = interleave(candidates, rounds=rounds)
    to_network = ratios(seconds["sampling loop"], seconds["bare network"])
    to_graph = ratios(seconds["sampling loop"], seconds["bare step graph"])
    return [
        Figure(
            "difference after a step",
            [disagreement(model, program, network)],
            at_most=AGREEMENT_LIMIT,
        ),
        *timed(seconds, "ms/step", 1e3 / steps),
        Figure(TO_NETWORK, to_network, at_most=RATIO_LIMIT),
        Figure(TO_GRAPH, to_graph),
    ]


def bare_session(checkpoint: Path, threads: int | None) -> Any:
    """Open the network alone in ONNX Runtime, with a dynamic batch as the step graph has it."""
    loaded = load_checkpoint(checkpoint)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        export_network(loaded.network, loaded.spec, path)
        return session(path, session_options(threads))


def sampling(model: Model, program: Program, steps: int) -> Turn:
    """Make what goes on by `steps` in the loop of `Model.sample`, sample after sample."""
    runs = (model.stream(program, n=1, first_sample=i) for i in itertools.count())
    states = itertools.chain.from_iterable(runs)
    return lambda: deque(itertools.islice(states, steps), maxlen=0)


def repeated(bare: Any, inputs: dict[str, np.ndarray], steps: int) -> Turn:
    """Make what runs a session `steps` times."""

    def run() -> None:
        for _ in range(steps):
            bare.run(None, inputs)

    return run


def network_inputs(model: Model) -> dict[str, np.ndarray]:
    """Make one noisy sample at one timestep."""
    return {"x": _normal(1, *model.spec.shape), "timestep": np.full(1, 500, np.float32)}


def disagreement(model: Model, program: Program, network: Any) -> float:
    """Measure how far one step is from the same step made of the bare network and numpy."""

    def bare(x: np.ndarray, cond: np.ndarray) -> np.ndarray:
        inputs = {"x": x.astype(np.float32), "timestep": cond.astype(np.float32)}
        return network.run(None, inputs)[0].astype(np.float64)

    shape = model.spec.shape
    batches = [backend.batch(program, 1) for backend in (model.backend, Reference(bare, shape))]
    for batch in batches:
        batch.start(_normal(1, *shape), row=len(program) // 2)
        batch.step(_normal(1, *shape))
    fast, exact = (batch.x for batch in batches)
    return relative_error(fast, exact)


def _normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape, np.float32)


if __name__ == "__main__":
    sys.exit(main())
