"""What a step of `sampler.onnx` takes, relative to the sampling loop of `Model.sample`.

Both run the same program from the same noise, in turns, in one process with the same threads. Their
samples are compared first; a time only counts for the same computation.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from _report import Figure, finish, parser
from _timing import interleave, ratios

import difftool
from difftool import Model, Program
from difftool.diffusion.calls import SamplerCall
from difftool.diffusion.packed import graph_inputs
from difftool.diffusion.samplers import compile_program
from difftool.export.portable.sampler import portable_sampler

RATIO = "sampler.onnx / sampling loop"
RATIO_LIMIT = 1.03
AGREEMENT_LIMIT = 1e-4  # of float samples


def main() -> int:
    arguments = parser(__doc__)
    arguments.add_argument("--model", default="ddpm-mnist", help="name, or folder of a bundle")
    arguments.add_argument("--rounds", type=int, default=20)
    arguments.add_argument("--sampler", default="ddpm", help="one that draws noise in every row")
    arguments.add_argument("--steps", type=int, default=250, help="in each round")
    arguments.add_argument("--samples", type=int, default=1, help="in a batch")
    arguments.add_argument("--threads", type=int, help="all cores by default")
    options = arguments.parse_args()

    model = difftool.load(
        options.model,
        backend="onnxruntime-cpu",
        threads=options.threads,
        max_batch=options.samples,
    )
    program = compile_program(model.spec, SamplerCall(options.sampler, {"steps": options.steps}))
    figures = measure(model, program, options.threads, options.rounds, options.samples)
    setup = {
        "model": Path(options.model).name,
        "program": program.name,
        "samples": options.samples,
        "threads": options.threads or "all",
        "rounds": options.rounds,
    }
    return finish("portable", figures, setup, options.out)


def measure(
    model: Model, program: Program, threads: int | None, rounds: int, n: int
) -> list[Figure]:
    """Whether the sides agree, what each takes, and the ratio."""
    session = opened(portable_sampler(model.bundle, program), threads)
    feeds = {"seed": np.zeros(1, np.uint64), "n": np.array([n]), **graph_inputs(program)}

    def portable() -> np.ndarray:
        return session.run(["samples"], feeds)[0]

    def loop() -> np.ndarray:
        return model.sample(program, n=n, seed=0)

    difference = float(np.abs(portable() - loop()).max())
    sides = {"sampler.onnx": portable, "sampling loop": loop}
    seconds = interleave(sides, rounds=rounds)
    return [
        Figure(name="difference of the samples", values=[difference], at_most=AGREEMENT_LIMIT),
        *(
            Figure(name=name, values=[1e3 * s / len(program) for s in values], unit="ms/step")
            for name, values in seconds.items()
        ),
        Figure(
            name=RATIO,
            values=ratios(seconds["sampler.onnx"], seconds["sampling loop"]),
            at_most=RATIO_LIMIT,
        ),
    ]


def opened(graph: bytes, threads: int | None) -> Any:
    """A graph in ONNX Runtime, as it comes."""
    settings = onnxruntime.SessionOptions()
    if threads is not None:
        settings.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(graph, settings, providers=["CPUExecutionProvider"])


if __name__ == "__main__":
    sys.exit(main())
