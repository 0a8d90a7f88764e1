"""Measure a sampling step here and in all else that runs the same network on this CPU.

All candidates of a model and batch take turns in one process. Each first takes steps from the same
states and noise as PyTorch; one that lands elsewhere is INVALID and not timed. The networks for
CIFAR-10 have random weights. Everything is prepared once in --work.

    python benchmarks/against_peers.py --only cifar10 --batch 1
    python benchmarks/against_peers.py --out benchmarks/results
    python benchmarks/pages.py
"""

import contextlib
import sys
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from statistics import median

import torch
from common.candidates import BF16, EAGER, FP32_PEERS, INT8, OURS, PIPELINE, Runner, Unavailable
from common.machine import instructions
from common.models import CASES, Case, Setting, prepare
from common.operators import profile
from common.parity import SingleSteps
from common.peers import CANDIDATES, quantized, reference, tolerance
from common.report import Figure, finish, parser, timed
from common.timing import interleave, ratios

from difftool.runtime import compare, open_backend

FASTEST, FASTEST_INT8 = "fastest fp32 peer", "fastest difftool int8"

Open = Callable[[Setting], Runner]

# (model, batch, numerator, denominator) -> limit
LIMITS: Mapping[tuple[str, int, str, str], Mapping[str, float]] = {
    **{("cifar10", size, OURS, FASTEST): {"at_most": 1.03} for size in (1, 4, 16)},
    ("cifar10", 1, PIPELINE, OURS): {"at_least": 1.35},
    ("ddpm-mnist", 1, PIPELINE, OURS): {"at_least": 4.0},
    **{("cifar10", size, EAGER, BF16): {"at_least": 2.0} for size in (1, 4, 16)},
    **{("cifar10", size, EAGER, FASTEST_INT8): {"at_least": 4.0} for size in (1, 16)},
}
# What a candidate is made for; on a CPU without it the limit is not for what is measured.
NEEDS = {BF16: "BF16", FASTEST_INT8: "VNNI"}


def main() -> int:
    arguments = parser(__doc__, "out", "threads", "work", rounds=7)
    arguments.add_argument("--only", action="append", choices=CASES, help="a model; repeatable")
    arguments.add_argument("--candidate", action="append", choices=CANDIDATES, help="repeatable")
    arguments.add_argument("--batch", action="append", type=int, help="a batch; repeatable")
    arguments.add_argument("--seconds", type=float, default=0.5, help="of this runtime's round")
    arguments.add_argument("--compile-seconds", type=int, default=900, help="for torch.compile")
    arguments.add_argument("--profile", action="store_true", help="also if all limits are reached")
    options = arguments.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    return max(measure(CASES[name], options) for name in options.only or CASES)


def measure(case: Case, options: Namespace) -> int:
    """Measure a model at its batches, print and write the figures, and give the exit code."""
    limits = {"threads": options.threads, "compile_seconds": options.compile_seconds}
    setting = replace(prepare(case, options.work), **limits)
    opens = {name: CANDIDATES[name] for name in options.candidate or CANDIDATES}
    figures: list[Figure] = []
    for size in options.batch or case.batches:
        figures += at_batch(replace(setting, size=size), opens, options)
    if any("int8" in name for name in opens):
        figures += int8_gate(setting)
    setup = {"model": case.name, "program": setting.program.name}
    return finish(f"peers-{case.name}", figures, options, **setup)


def at_batch(setting: Setting, opens: Mapping[str, Open], options: Namespace) -> list[Figure]:
    """Measure all figures of a model at one batch."""
    title = f"batch {setting.size}"
    runners, figures = opened(setting, opens)
    if not runners:
        return figures
    count = steps_of_a_round(runners, options.seconds)
    turns = {name: partial(runner.steps, count) for name, runner in runners.items()}
    seconds = interleave(turns, rounds=options.rounds)
    figures += timed({f"{title}: {n}": s for n, s in seconds.items()}, "ms/step", 1e3 / count)
    compared = comparisons(setting.case.name, setting.size, seconds)
    figures += compared
    if options.profile or any(figure.limit and figure.verdict != "pass" for figure in compared):
        figures += profiles(setting)
    return figures


def opened(setting: Setting, opens: Mapping[str, Open]) -> tuple[dict[str, Runner], list[Figure]]:
    """Open the candidates that work here and land where PyTorch does; figures say how near."""
    title = f"batch {setting.size}"
    batch = reference(setting).batch(setting.program, setting.size)
    exact = SingleSteps(batch, setting.spec, setting.program, setting.size)
    runners, figures = {}, []
    for name, open_one in opens.items():
        try:
            runner = open_one(setting)
            error = exact.error(runner.batch)
        except Unavailable as reason:
            figures.append(Figure(f"{title}: {name}", [], absent=str(reason)))
            continue
        limit = tolerance(name, setting)
        own = limit if name.startswith("difftool") else None  # a peer's failure is not ours
        figures.append(Figure(f"{title}: {name}, error", [error], at_most=own))
        if error <= limit:
            runners[name] = runner
        else:
            absent = f"INVALID: {error:.2g} from PyTorch"
            figures.append(Figure(f"{title}: {name}", [], absent=absent))
    return runners, figures


def steps_of_a_round(runners: Mapping[str, Runner], seconds: float) -> int:
    """Count the steps that this runtime, or else the first candidate, takes in so many seconds."""
    runner = runners.get(OURS) or next(iter(runners.values()))
    took = interleave({"": partial(runner.steps, 2)}, rounds=3)[""]
    return max(2, min(200, round(2 * seconds / median(took))))


def comparisons(
    model: str, size: int, seconds: Mapping[str, Sequence[float]], has: Sequence[str] | None = None
) -> list[Figure]:
    """Compare times round by round, with the limits that hold for this model and batch.

    `has` are the instructions of the CPU, by default of this one.
    """
    has = instructions() if has is None else has
    known = dict(seconds)
    for name, group in ((FASTEST, FP32_PEERS), (FASTEST_INT8, INT8)):
        if rivals := [seconds[rival] for rival in group if rival in seconds]:
            known[name] = min(rivals, key=median)
    pairs = [(OURS, FASTEST), (PIPELINE, OURS), *((EAGER, n) for n in (OURS, BF16, FASTEST_INT8))]
    figures = []
    for above, below in pairs:
        name, limit = f"batch {size}: {above} / {below}", LIMITS.get((model, size, above, below))
        needed = NEEDS.get(below) if limit else None
        why = "" if needed in (None, *has) else f"not judged: this CPU has no {needed}"
        if above in known and below in known:
            values = ratios(known[above], known[below])
            figures.append(Figure(name, values, unjudged=why, **(limit or {})))
        elif limit:
            figures.append(Figure(name, [], absent=why or "not measured", **limit))
    return figures


def int8_gate(setting: Setting) -> list[Figure]:
    """Measure the error of int8 over the default program, held to the bundle's own bound.

    That bound speaks of this program: fewer steps are larger ones, and so are their errors.
    """
    name = "int8 over the default program, error"
    try:
        bundle = quantized(setting)
    except Unavailable as reason:
        return [Figure(name, [], absent=str(reason))]
    backend = open_backend(bundle, None, threads=setting.threads, precision="int8")
    found = compare(backend, reference(setting), setting.program, setting.spec, 1)
    return [Figure(name, [found.step_error], at_most=tolerance("int8", setting))]


def profiles(setting: Setting) -> list[Figure]:
    """Say where a step's time goes on ONNX Runtime, in fp32 and, if there is one, in int8."""
    bundles = {"fp32": setting.bundle}
    with contextlib.suppress(Unavailable):
        bundles["int8"] = quantized(setting)
    figures = []
    for precision, bundle in bundles.items():
        found = profile(bundle, precision, setting.size, steps=5, threads=setting.threads)
        whole = sum(found.values())
        title = f"batch {setting.size}: {precision} on onnxruntime-cpu"
        shares = {f"{title}, {kind}: {ms / whole:.0%}": [ms] for kind, ms in found.items()}
        figures += timed(shares, "ms/step")
    return figures


if __name__ == "__main__":
    sys.exit(main())
