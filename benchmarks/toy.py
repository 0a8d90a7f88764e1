"""Measure annealed Langevin dynamics of points in the plane, here and as a loop in PyTorch.

The network is the small MLP of the preset `toy`, with random weights; 10,000 points take 1000 steps
(Song and Ermon 2019, figure 3 c). Both have the same threads. That they compute the same is
checked on the same noise; when timed, each draws its own.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from common.models import untrained
from common.operators import profile
from common.parity import relative_error
from common.report import Figure, finish, parser, timed
from common.timing import interleave, ratios
from torch import Tensor

from difftool import Model, Program, load, samplers
from difftool.export import export
from difftool.runtime import Draws
from difftool.train import Checkpoint, load_checkpoint

RATIO = "torch loop / difftool"
LIMIT = 5.0
AGREEMENT_LIMIT = 1e-3  # of the largest coordinate, after all steps
STEP_SIZE = 0.1

Normal = Callable[[int], Tensor]  # of a draw's index; [N, 2]


def main() -> int:
    arguments = parser(__doc__, "out", "threads", "work", rounds=5)
    arguments.add_argument("--points", type=int, default=10_000)
    arguments.add_argument("--steps", type=int, default=1000)
    arguments.add_argument("--backend", help="this runtime's; its own choice by default")
    arguments.add_argument("--profile", action="store_true", help="also if the limit is kept")
    options = arguments.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    model, source = prepare(options.work, options.backend, options.threads)
    figures = compare(source, model, options.points, options.steps, options.rounds)
    if options.profile or figures[-1].verdict == "FAIL":
        found = profile(model.bundle, "fp32", model.max_batch, steps=10, threads=options.threads)
        times = {f"on onnxruntime-cpu, {kind}": [ms] for kind, ms in found.items()}
        figures += timed(times, "ms/step of a batch")
    setup = {"points": options.points, "steps": options.steps, "max_batch": model.max_batch}
    return finish("toy", figures, options, **setup, backend=model.backend.name)


def prepare(work: Path, backend: str | None, threads: int | None) -> tuple[Model, Checkpoint]:
    """Open the network in this runtime and in PyTorch; its bundle is exported anew."""
    checkpoint = untrained("toy", (2,), work / "toy")
    bundle = export(checkpoint, work / "toy/bundle", force=True).path
    return load(bundle, backend=backend, threads=threads), load_checkpoint(checkpoint)


def compare(source: Checkpoint, model: Model, points: int, steps: int, rounds: int) -> list[Figure]:
    """Say whether both agree, what each takes, and the ratio."""
    program = samplers.annealed_langevin(
        model.spec, steps=steps, step_size=STEP_SIZE, convention="paper", denoise=False
    )

    def loop() -> Tensor:
        return torch_loop(source, program, points, lambda draw: torch.randn(points, 2))

    candidates = {"difftool": lambda: model.sample(program, n=points), "torch loop": loop}
    seconds = interleave(candidates, rounds=rounds)
    difference = disagreement(source, model, program)
    return [
        Figure("difference on the same noise", [difference], at_most=AGREEMENT_LIMIT),
        *timed(seconds, "s"),
        Figure(RATIO, ratios(seconds["torch loop"], seconds["difftool"]), at_least=LIMIT),
    ]


@torch.inference_mode()
def torch_loop(source: Checkpoint, program: Program, points: int, normal: Normal) -> Tensor:
    """Run algorithm 1 of Song and Ermon 2019, in PyTorch as it comes; [N, 2]."""
    spec, network = source.spec, source.network
    sigmas = spec.schedule.sigma[::-1]
    x = program.start.high * normal(0)
    draw = 0
    for level, sigma in enumerate(sigmas.tolist()):
        alpha = STEP_SIZE * (sigma / sigmas[-1]) ** 2
        spread = (sigma**2 + spec.sigma_data**2) ** 0.5
        cond = torch.full((points,), float(level))
        for _ in range(len(program) // len(sigmas)):
            draw += 1
            output = network(x / spread, network.condition(cond))
            skip, out = (spec.sigma_data / spread) ** 2, sigma * spec.sigma_data / spread
            denoised = skip * x + out * output
            score = (denoised - x) / sigma**2
            x = x + alpha / 2 * score + alpha**0.5 * normal(draw)
    return x


def disagreement(source: Checkpoint, model: Model, program: Program, points: int = 64) -> float:
    """Measure how far apart the two end from the same noise, of the largest coordinate."""

    draws = Draws(0, np.arange(points), model.spec.shape)
    ours = model.sample(program, n=points, seed=0)
    theirs = torch_loop(source, program, points, lambda draw: torch.from_numpy(draws.normal(draw)))
    return relative_error(ours, theirs.numpy())


if __name__ == "__main__":
    sys.exit(main())
