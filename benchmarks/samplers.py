"""Measure how good the samples are that a sampler draws with few network evaluations.

    python benchmarks/samplers.py                      # measure every cell that is missing
    python benchmarks/samplers.py --only ncsn-mnist --nfe 10 20 --sampler ddim
    python benchmarks/pages.py                         # only write the page

Each shipped model's samples are compared with MNIST's test set in the features of the shipped
extractor. A cell is kept in the results, and docs/quality.md is written from them, as soon as it is
measured. It is not measured again while the model's weights, the extractor, the program, n and the
seed are the same, so the script can be stopped and started again. Cells with few evaluations come
first.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np
from common import sampler_cells
from common.mnist import Pixels, channels_last, load_mnist, unseen
from common.report import parser
from common.sampler_cells import BATCH, GRID, KEPT, NFE, Cell, Record, find, keep, read_records
from pages import write_pages

import difftool
from difftool import Model
from difftool.evaluate import Evaluator, open_extractor
from difftool.files import locked
from difftool.runtime import bench


def main() -> int:
    options = parse()
    extractor = open_extractor("mnist", threads=1)
    setup = sampler_cells.Setup(options.n, options.seed, extractor.sha256)
    test = channels_last(load_mnist(options.data, "test").values)
    evaluator = Evaluator(test.shape[1:], test, extractor=extractor)
    key = sampler_cells.cell_key(setup)
    if find(read_records(options.results), key) is None:
        figures = compared(evaluator, unseen(options.data, setup.n))
        with locked(options.results.parent, wait=True):
            keep(options.results, {"model": sampler_cells.REAL, **key, **figures})
    evaluator.evaluate(test[: setup.n])  # no cell's time has that of looking at the test set in it
    models = {name: difftool.load(name, threads=1) for name in options.only}
    for model in models.values():
        key = sampler_cells.speed_key(model.bundle)
        if find(read_records(options.results), key) is None:
            with locked(options.results.parent, wait=True):
                keep(options.results, {**key, "ms": round(speed(model), 3)})
    for cell in chosen(options.only, options.nfe, options.sampler):
        model = models[cell.model]
        program = cell.program(model.spec)
        key = sampler_cells.cell_key(setup, model.bundle, program)
        if find(read_records(options.results), key) is not None:
            continue
        begin = time.perf_counter()
        samples = model.sample(program, n=setup.n, seed=setup.seed)
        figures = compared(evaluator, difftool.to_uint8(samples, model.spec))
        seconds = round(time.perf_counter() - begin, 1)
        labels = {"model": cell.model, "sampler": cell.line.label, "nfe": len(program)}
        with locked(options.results.parent, wait=True):
            keep(options.results, {**labels, **key, **figures, "seconds": seconds})
            if options.results == KEPT:
                write_pages()
        said = f"{figures['frechet_distance']:.3f} ({seconds:.0f} s)"
        print(f"{cell.model} {cell.line.label} {cell.nfe}: {said}", flush=True)
    return 0


def speed(model: Model) -> float:
    """Give the milliseconds of an evaluation for one image of a batch, on one core."""
    program, sides = model.default_program(), {"own": model.backend}
    timing = bench.measure(sides, program, model.spec, size=BATCH, rounds=3)["own"]
    return float(np.median(timing.ms)) / BATCH


def parse() -> argparse.Namespace:
    arguments = parser(__doc__, "data")
    arguments.add_argument("--results", type=Path, default=KEPT, metavar="FILE.json")
    arguments.add_argument("--only", nargs="+", choices=list(GRID), default=list(GRID))
    arguments.add_argument("--nfe", nargs="+", type=int, choices=NFE, default=list(NFE))
    arguments.add_argument("--sampler", nargs="+", metavar="LABEL", help="lines of the table")
    arguments.add_argument("-n", type=int, default=sampler_cells.N)
    arguments.add_argument("--seed", type=int, default=sampler_cells.SEED)
    return arguments.parse_args()


def chosen(models: list[str], nfe: list[int], labels: list[str] | None) -> list[Cell]:
    """Pick the cells in these columns and, if they are given, lines; few evaluations first."""
    found = [
        cell
        for model in models
        for cell in sampler_cells.cells(model)
        if cell.nfe in nfe and (labels is None or cell.line.label in labels)
    ]
    return sorted(found, key=lambda cell: cell.nfe)


def compared(evaluator: Evaluator, images: Pixels) -> Record:
    """Compare images with the test set, and give the figures of a record."""
    figures = evaluator.evaluate(images).figures
    return {
        "frechet_distance": figures.frechet_distance,
        "kernel_distance": figures.kernel_distance,
        "sure": figures.classes.sure,
        **figures.manifold._asdict(),
    }


if __name__ == "__main__":
    sys.exit(main())
