"""Measure what a sampling step costs above the bare network, at batch 1.

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

from common import sessions
from common.machine import ROOT
from common.models import Case, Setting
from common.operators import step_inputs
from common.parity import SingleSteps
from common.peers import onnxruntime_plain
from common.report import Figure, finish, parser, timed
from common.timing import Turn, interleave, ratios, repeated

import difftool
from difftool import Model
from difftool.bundle import STEP
from difftool.train import load_checkpoint

TO_NETWORK, TO_GRAPH = "loop / bare network", "loop / bare step graph"
RATIO_LIMIT = 1.05
AGREEMENT_LIMIT = 1e-4  # of the state's scale; a time only counts for the same computation


def main() -> int:
    arguments = parser(__doc__, "out", "threads", rounds=20)
    arguments.add_argument("--model", default="ddpm-mnist", help="name, or folder of a bundle")
    arguments.add_argument("--checkpoint", type=Path, help="where it came from")
    arguments.add_argument("--steps", type=int, default=250, help="in each round")
    options = arguments.parse_args()
    checkpoint = options.checkpoint or ROOT / "checkpoints" / options.model
    model = difftool.load(options.model, threads=options.threads)
    figures = measure(model, checkpoint, options.threads, options.rounds, options.steps)
    setup = {"model": Path(options.model).name, "program": model.default_program().name}
    return finish("step_overhead", figures, options, **setup, steps=options.steps)


def measure(
    model: Model, checkpoint: Path, threads: int | None, rounds: int, steps: int
) -> list[Figure]:
    """Say whether the candidates agree, what each takes, and the ratios."""
    program = model.default_program()
    with tempfile.TemporaryDirectory() as folder:
        case = Case(checkpoint.name, lambda work: checkpoint)
        loaded, place = load_checkpoint(checkpoint), Path(folder)
        network = onnxruntime_plain(Setting(case, loaded, model.bundle, place, threads=threads))
    graph = sessions.session(model.bundle.file(STEP), sessions.options(threads))
    inputs = step_inputs(graph, model.bundle, 1)
    bare = SingleSteps(network.batch, model.spec, program, 1)
    difference = bare.error(model.backend.batch(program, 1))

    candidates = {
        "sampling loop": sampling(model, steps),
        "bare network": lambda: network.steps(steps),
        "bare step graph": repeated(lambda: graph.run(None, inputs), steps),
    }
    seconds = interleave(candidates, rounds=rounds)
    to_network = ratios(seconds["sampling loop"], seconds["bare network"])
    to_graph = ratios(seconds["sampling loop"], seconds["bare step graph"])
    return [
        Figure("difference after a step", [difference], at_most=AGREEMENT_LIMIT),
        *timed(seconds, "ms/step", 1e3 / steps),
        Figure(TO_NETWORK, to_network, at_most=RATIO_LIMIT),
        Figure(TO_GRAPH, to_graph),
    ]


def sampling(model: Model, steps: int) -> Turn:
    """Make a turn of `steps` in the loop of `Model.sample`, which goes on sample after sample."""
    program = model.default_program()
    runs = (model.stream(program, n=1, first_sample=i) for i in itertools.count())
    states = itertools.chain.from_iterable(runs)
    return lambda: deque(itertools.islice(states, steps), maxlen=0)


if __name__ == "__main__":
    sys.exit(main())
