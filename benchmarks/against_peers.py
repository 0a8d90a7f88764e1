"""What a sampling step takes, next to everything else that runs the same network on this CPU.

All sides of a model and batch take turns in one process. Each first takes steps from the same
states and noise as PyTorch; one that lands elsewhere is INVALID and not timed. The networks for
CIFAR-10 have random weights. Everything is prepared once in --work.

    python benchmarks/against_peers.py --only cifar10 --batch 1
    python benchmarks/against_peers.py --out benchmarks/results
    python benchmarks/against_peers.py --report
"""

import contextlib
import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

import torch
from _models import CASES, Case, Prepared, prepare
from _peers import (
    FP32_PEERS,
    SIDES,
    Setting,
    Side,
    Unavailable,
    quantized,
    step_error,
    teacher,
    tolerance,
)
from _profile import profile
from _ratios_page import write_pages
from _report import ROOT, Figure, finish, instructions, parser
from _timing import Side as Turn
from _timing import interleave, ratios

from difftool.export.verify import compare
from difftool.runtime.opening import open_backend

OURS = "difftool fp32"
INT8 = ("difftool int8", "difftool int8, openvino")
PIPELINE, EAGER = "diffusers pipeline", "torch eager"
FASTEST = "fastest fp32 peer"
PROFILE_STEPS = 5

# (model, batch, numerator, denominator) -> at most, at least
LIMITS: dict[tuple[str, int, str, str], tuple[float | None, float | None]] = {
    **{("cifar10", size, OURS, FASTEST): (1.03, None) for size in (1, 4, 16)},
    ("cifar10", 1, PIPELINE, OURS): (None, 1.35),
    ("ddpm-mnist", 1, PIPELINE, OURS): (None, 4.0),
    **{("cifar10", size, EAGER, "difftool bf16"): (None, 2.0) for size in (1, 4, 16)},
    **{("cifar10", size, EAGER, "fastest difftool int8"): (None, 4.0) for size in (1, 16)},
}
# What a side is made for; on a CPU without it the limit is not for what is measured.
NEEDS = {"difftool bf16": "BF16", "fastest difftool int8": "VNNI"}


def main() -> int:
    arguments = parser(__doc__)
    arguments.add_argument("--only", action="append", choices=CASES, help="a model; repeatable")
    arguments.add_argument("--side", action="append", choices=SIDES, help="a side; repeatable")
    arguments.add_argument("--batch", action="append", type=int, help="a batch; repeatable")
    arguments.add_argument("--rounds", type=int, default=7)
    arguments.add_argument("--seconds", type=float, default=0.5, help="of this runtime's round")
    arguments.add_argument("--threads", type=int, help="all cores by default")
    arguments.add_argument("--compile-seconds", type=int, default=900, help="for torch.compile")
    arguments.add_argument("--work", type=Path, default=ROOT / "runs/bench", metavar="FOLDER")
    arguments.add_argument(
        "--profile", action="store_true", help="also where all limits are reached"
    )
    arguments.add_argument("--report", action="store_true", help="write the pages from results")
    options = arguments.parse_args()
    if options.report:
        write_pages()
        return 0
    if options.threads:
        torch.set_num_threads(options.threads)
    codes = [measure(CASES[name], options) for name in options.only or CASES]
    return max(codes)


def measure(case: Case, options: Namespace) -> int:
    """Measure a model at its batches, print and write the figures; the exit code."""
    prepared = prepare(case, options.work)
    figures: list[Figure] = []
    for size in options.batch or case.batches:
        setting = Setting(prepared, size, options.threads, options.compile_seconds)
        figures += at_batch(case.name, setting, options.side or list(SIDES), options)
    if any("int8" in side for side in options.side or SIDES):
        figures += int8_gate(prepared, options.threads)
    setup = {
        "model": case.name,
        "program": prepared.bundle.default_program().name,
        "threads": options.threads or "all",
        "rounds": options.rounds,
    }
    return finish(f"peers-{case.name}", figures, setup, options.out)


def at_batch(
    model: str, setting: Setting, names: Sequence[str], options: Namespace
) -> list[Figure]:
    """All figures of a model at one batch."""
    title = f"batch {setting.size}"
    sides, figures = open_sides(title, setting, names)
    if not sides:
        return figures
    count = steps_of_a_round(sides, options.seconds)
    timed = interleave(
        {name: _counted(side, count) for name, side in sides.items()}, rounds=options.rounds
    )
    ms = {name: [1e3 * value / count for value in values] for name, values in timed.items()}
    figures += [
        Figure(name=f"{title}: {name}", values=values, unit="ms/step")
        for name, values in ms.items()
    ]
    compared = comparisons(model, setting.size, ms)
    figures += compared
    reached = all(not f.limit or f.verdict == "pass" for f in compared)
    if options.profile or not reached:
        figures += profiles(title, setting)
    return figures


def open_sides(
    title: str, setting: Setting, names: Sequence[str]
) -> tuple[dict[str, Side], list[Figure]]:
    """The sides that work here and land where PyTorch does; a figure says of each how near."""
    sides, figures = {}, []
    for name in names:
        try:
            side = SIDES[name](setting)
            error = step_error(side, setting.prepared, setting.size)
        except Unavailable as reason:
            figures.append(Figure(name=f"{title}: {name}", values=[], absent=str(reason)))
            continue
        limit = tolerance(name, setting.prepared)
        own = limit if name.startswith("difftool") else None  # a peer's failure is not ours
        figures.append(Figure(name=f"{title}: {name}, error", values=[error], at_most=own))
        if error <= limit:
            sides[name] = side
        else:
            reason = f"INVALID: {error:.2g} from PyTorch"
            figures.append(Figure(name=f"{title}: {name}", values=[], absent=reason))
    return sides, figures


def steps_of_a_round(sides: Mapping[str, Side], seconds: float) -> int:
    """How many steps this runtime, or else the first side, takes in so many seconds."""
    side = sides.get(OURS) or next(iter(sides.values()))
    took = interleave({"": _counted(side, 2)}, rounds=3)[""]
    return max(2, min(200, round(2 * seconds / median(took))))


def comparisons(model: str, size: int, ms: Mapping[str, Sequence[float]]) -> list[Figure]:
    """Ratios of ms per step, round by round, with the limits that hold for this model and batch."""
    rivals = {name: ms[name] for name in FP32_PEERS if name in ms}
    quantized_sides = {name: ms[name] for name in INT8 if name in ms}
    known = dict(ms)
    if rivals:
        known[FASTEST] = min(rivals.values(), key=median)
    if quantized_sides:
        known["fastest difftool int8"] = min(quantized_sides.values(), key=median)
    pairs = [(OURS, FASTEST), (PIPELINE, OURS)]
    pairs += [(EAGER, name) for name in (OURS, "difftool bf16", "fastest difftool int8")]
    figures = []
    for above, below in pairs:
        at_most, at_least = LIMITS.get((model, size, above, below), (None, None))
        name = f"batch {size}: {above} / {below}"
        if above in known and below in known:
            values = ratios(known[above], known[below])
            limits = {"at_most": at_most, "at_least": at_least}
            unjudged = _not_judged(below) if any(limits.values()) else ""
            figures.append(Figure(name=name, values=values, unjudged=unjudged, **limits))
        elif at_most is not None or at_least is not None:
            figures.append(
                Figure(
                    name=name,
                    values=[],
                    at_most=at_most,
                    at_least=at_least,
                    absent=_not_judged(below) or "not measured",
                )
            )
    return figures


def int8_gate(prepared: Prepared, threads: int | None) -> list[Figure]:
    """The teacher-forced error of int8 over the default program, held to the bundle's own bound.

    That bound speaks of this program: fewer steps are larger ones, and so are their errors.
    """
    name = "int8 over the default program, error"
    try:
        bundle = quantized(prepared)
    except Unavailable as reason:
        return [Figure(name=name, values=[], absent=str(reason))]
    backend = open_backend(bundle, None, threads=threads, precision="int8")
    found = compare(backend, teacher(prepared), bundle.default_program(), prepared.spec, 1)
    limit = tolerance("int8", prepared)
    return [Figure(name=name, values=[found.step_error], at_most=limit)]


def profiles(title: str, setting: Setting) -> list[Figure]:
    """Where a step's time goes on ONNX Runtime, in fp32 and, where there is one, in int8."""
    bundles = {"fp32": setting.prepared.bundle}
    with contextlib.suppress(Unavailable):
        bundles["int8"] = quantized(setting.prepared)
    figures = []
    for precision, bundle in bundles.items():
        found = profile(
            bundle, precision, setting.size, steps=PROFILE_STEPS, threads=setting.threads
        )
        whole = sum(found.values())
        figures += [
            Figure(
                name=f"{title}: {precision} on onnxruntime-cpu, {kind}: {ms / whole:.0%}",
                values=[ms],
                unit="ms/step",
            )
            for kind, ms in found.items()
        ]
    return figures


def _not_judged(side: str) -> str:
    """Why no limit holds for a side on this CPU; empty where it does."""
    needed = NEEDS.get(side)
    missing = needed is not None and needed not in instructions()
    return f"not judged: this CPU has no {needed}" if missing else ""


def _counted(side: Side, count: int) -> Turn:
    return lambda: side.steps(count)


if __name__ == "__main__":
    sys.exit(main())
