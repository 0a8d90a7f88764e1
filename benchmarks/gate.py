"""Check in a short run that the ratios of the committed results are still reached.

Ratios, not times: they depend little on the machine, so this says something on another one, too.
"""

import sys
from collections.abc import Iterable
from pathlib import Path

import step_overhead
import torch
import toy
from common.machine import ROOT
from common.report import RESULTS, Figure, finish, parser

import difftool
from difftool.files import read_json

TOLERANCE = 1.15  # times worse than committed
MODEL = "ddpm-mnist"


def main() -> int:
    options = parser(__doc__, "out", "threads", "work", rounds=5).parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    model = difftool.load(MODEL, threads=options.threads)
    overhead = step_overhead.measure(
        model, ROOT / "checkpoints" / MODEL, options.threads, options.rounds, steps=50
    )
    points, source = toy.prepare(options.work, None, options.threads)
    plane = toy.compare(source, points, points=10_000, steps=50, rounds=options.rounds)
    names = (step_overhead.TO_NETWORK, step_overhead.TO_GRAPH)
    figures = [
        *(held(overhead, name, committed("step_overhead", name), lower=True) for name in names),
        held(plane, toy.RATIO, committed("toy", toy.RATIO), lower=False),
    ]
    return finish("gate", figures, options, tolerance=TOLERANCE)


def committed(benchmark: str, name: str, folder: Path = RESULTS) -> float | None:
    """Look up the median of a figure in the committed results; None if there is none."""
    path = folder / f"{benchmark}.json"
    figures = read_json(path)["figures"] if path.is_file() else []
    return next((figure["median"] for figure in figures if figure["name"] == name), None)


def held(figures: Iterable[Figure], name: str, before: float | None, *, lower: bool) -> Figure:
    """Hold a figure to what was reached before; `lower` says that lower is better."""
    found = next(figure for figure in figures if figure.name == name)
    limits = {}
    if before is not None:
        limits = {"at_most": before * TOLERANCE} if lower else {"at_least": before / TOLERANCE}
    return Figure(name, found.values, **limits)


if __name__ == "__main__":
    sys.exit(main())
