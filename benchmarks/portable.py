"""Measure a step of `sampler.onnx`, relative to the sampling loop of `Model.sample`.

Both run the same program from the same noise, in turns, in one process with the same threads. Their
samples are compared first; a time only counts for the same computation.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import safetensors.numpy
from common import sessions
from common.report import Figure, finish, parser, timed
from common.timing import interleave, ratios

import difftool
from difftool import Model, Program
from difftool.diffusion import SamplerCall, compile_program, pack_program

RATIO = "sampler.onnx / sampling loop"
RATIO_LIMIT = 1.03
AGREEMENT_LIMIT = 1e-4  # of float samples


def main() -> int:
    arguments = parser(__doc__, "out", "threads", rounds=20)
    arguments.add_argument("--model", default="ddpm-mnist", help="name, or folder of a bundle")
    arguments.add_argument("--sampler", default="ddpm", help="one that draws noise in every row")
    arguments.add_argument("--steps", type=int, default=250, help="in each round")
    arguments.add_argument("--samples", type=int, default=1, help="in a batch")
    options = arguments.parse_args()
    model = difftool.load(
        options.model, backend="onnxruntime-cpu", threads=options.threads, max_batch=options.samples
    )
    program = compile_program(model.spec, SamplerCall(options.sampler, {"steps": options.steps}))
    figures = measure(model, program, options.threads, options.rounds, options.samples)
    setup = {"model": Path(options.model).name, "program": program.name}
    return finish("portable", figures, options, **setup, samples=options.samples)


def measure(
    model: Model, program: Program, threads: int | None, rounds: int, n: int
) -> list[Figure]:
    """Say whether the two agree, what each takes, and the ratio."""
    with tempfile.TemporaryDirectory() as folder:
        made = difftool.compile.portable(model.bundle, f"{folder}/sampler.onnx", program=program)
        graph = sessions.session(made.path, sessions.options(threads))
    inputs = safetensors.numpy.load(pack_program(program))
    feeds = {"seed": np.zeros(1, np.uint64), "n": np.array([n]), **inputs}

    def portable() -> np.ndarray:
        return graph.run(["samples"], feeds)[0]

    def loop() -> np.ndarray:
        return model.sample(program, n=n, seed=0)

    difference = float(np.abs(portable() - loop()).max())
    seconds = interleave({"sampler.onnx": portable, "sampling loop": loop}, rounds=rounds)
    ratio = ratios(seconds["sampler.onnx"], seconds["sampling loop"])
    return [
        Figure("difference of the samples", [difference], at_most=AGREEMENT_LIMIT),
        *timed(seconds, "ms/step", 1e3 / len(program)),
        Figure(RATIO, ratio, at_most=RATIO_LIMIT),
    ]


if __name__ == "__main__":
    sys.exit(main())
