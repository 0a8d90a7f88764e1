"""Whether the ratios of the committed results are still reached, in a short run.

Ratios, not times: they depend little on the machine, so this says something on another one, too.
"""

import json
import sys
from collections.abc import Iterable
from pathlib import Path

import step_overhead
import torch
import toy
from _ratios_page import RESULTS
from _report import ROOT, Figure, finish, parser

import difftool

TOLERANCE = 1.15  # times worse than committed
MODEL = "ddpm-mnist"


def main() -> int:
    arguments = parser(__doc__)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--threads", type=int, help="all cores by default")
    arguments.add_argument("--work", type=Path, default=ROOT / "runs/bench", metavar="FOLDER")
    options = arguments.parse_args()
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
    setup = {"tolerance": TOLERANCE, "threads": options.threads or "all", "rounds": options.rounds}
    return finish("gate", figures, setup, options.out)


def committed(benchmark: str, name: str, folder: Path = RESULTS) -> float | None:
    """The median of a figure in the committed results; None where there is none."""
    file = folder / f"{benchmark}.json"
    figures = json.loads(file.read_text())["figures"] if file.is_file() else []
    return next((figure["median"] for figure in figures if figure["name"] == name), None)


def held(figures: Iterable[Figure], name: str, before: float | None, *, lower: bool) -> Figure:
    """A figure, with what was reached before as its limit; where `lower`, lower is better."""
    found = next(figure for figure in figures if figure.name == name)
    if before is None:
        return Figure(name=name, values=found.values)
    if lower:
        return Figure(name=name, values=found.values, at_most=before * TOLERANCE)
    return Figure(name=name, values=found.values, at_least=before / TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
