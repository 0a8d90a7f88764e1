"""How good samples are that a sampler draws with few network evaluations.

    python benchmarks/samplers.py                      # measure every cell that is missing
    python benchmarks/samplers.py --only ncsn-mnist --nfe 10 20 --sampler ddim
    python benchmarks/samplers.py --report             # only write the page

Each shipped model's samples are compared with MNIST's test set in the features of the shipped
extractor. A cell is kept in the results, and docs/quality.md is written from them, as soon as it is
measured. It is not measured again while the model's weights, the extractor, the program, n and the
seed are the same, so the script can be stopped and started again. Cells with few evaluations come
first.
"""

import argparse
import contextlib
import fcntl
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from _grid import GRID, NFE, Cell, cells
from _mnist import FOLDER, HELD_OUT, load_mnist
from _report import ROOT
from _samplers_page import IMAGE, Measured, page, plot

import difftool
from difftool import Program, to_uint8
from difftool.bundle import Bundle, read_bundle
from difftool.errors import UsageError
from difftool.evaluate.comparison import ImageFigures, compare_images
from difftool.evaluate.extractor import Extractor, View, open_extractor
from difftool.files import read_json, write_atomic, write_json
from difftool.runtime.model import find_bundle

RESULTS = ROOT / "benchmarks/results/samplers.json"
PAGE = ROOT / "docs/quality.md"
N, SEED = 500, 0  # of the page
REAL = "real images"

Record = dict[str, Any]


class Setup(NamedTuple):
    """What all cells of a page have in common."""

    n: int
    seed: int
    extractor_sha256: str


def main() -> int:
    options = parse()
    extractor = open_extractor("mnist", threads=1)
    setup = Setup(options.n, options.seed, extractor.sha256)
    if options.report:
        write(read_records(RESULTS), extractor)
        return 0
    test = extractor.view(load_mnist(options.data, "test").images.transpose(0, 2, 3, 1))
    measure_real(options, setup, extractor, test)
    models = {name: difftool.load(name, threads=1) for name in options.only}
    for cell in chosen(options.only, options.nfe, options.sampler):
        model = models[cell.model]
        program = cell.program(model.spec)
        key = model_key(model.bundle, program, setup)
        if find(read_records(options.results), key) is not None:
            continue
        begin = time.perf_counter()
        samples = model.sample(program, n=setup.n, seed=setup.seed)
        figures = compare_images(extractor.view(to_uint8(samples, model.spec)), test)
        seconds = time.perf_counter() - begin
        labels = {"model": cell.model, "sampler": cell.line.label, "nfe": len(program)}
        with alone(options.results):
            record = {**labels, **key, **flat(figures), "seconds": round(seconds, 1)}
            records = keep(options.results, record)
            if options.results == RESULTS:
                write(records, extractor)
        print(
            f"{cell.model} {cell.line.label} {cell.nfe}: {figures.frechet_distance:.3f} "
            f"({seconds:.0f} s)",
            flush=True,
        )
    return 0


def parse() -> argparse.Namespace:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--data", type=Path, default=FOLDER)
    arguments.add_argument("--results", type=Path, default=RESULTS, metavar="FILE.json")
    arguments.add_argument("--only", nargs="+", choices=list(GRID), default=list(GRID))
    arguments.add_argument("--nfe", nargs="+", type=int, choices=NFE, default=list(NFE))
    arguments.add_argument("--sampler", nargs="+", metavar="LABEL", help="lines of the table")
    arguments.add_argument("-n", type=int, default=N)
    arguments.add_argument("--seed", type=int, default=SEED)
    arguments.add_argument("--report", action="store_true", help="measure nothing")
    return arguments.parse_args()


def chosen(models: list[str], nfe: list[int], labels: list[str] | None) -> list[Cell]:
    """The cells in these columns and, where they are given, lines; few evaluations first."""
    found = [
        cell
        for model in models
        for cell in cells(model)
        if cell.nfe in nfe and (labels is None or cell.line.label in labels)
    ]
    return sorted(found, key=lambda cell: cell.nfe)


def measure_real(
    options: argparse.Namespace, setup: Setup, extractor: Extractor, test: View
) -> None:
    """As many real images as there are samples, which the extractor has not seen."""
    key = real_key(setup)
    if find(read_records(options.results), key) is None:
        images = load_mnist(options.data, "train").images[-HELD_OUT:][: setup.n]
        figures = compare_images(extractor.view(images.transpose(0, 2, 3, 1)), test)
        with alone(options.results):
            keep(options.results, {"model": REAL, **key, **flat(figures)})


def model_key(bundle: Bundle, program: Program, setup: Setup) -> Record:
    """What makes two cells the same measurement."""
    weights = bundle.manifest.provenance.weights_sha256
    return {"weights_sha256": weights, "program": program.name, **setup._asdict()}


def real_key(setup: Setup) -> Record:
    """The same for real images."""
    return {"weights_sha256": None, "program": None, **setup._asdict()}


def find(records: list[Record], key: Record) -> Record | None:
    """The record of a measurement, or None."""
    for record in records:
        if all(record[name] == value for name, value in key.items()):
            return record
    return None


def write(records: list[Record], extractor: Extractor) -> None:
    """Write the page and its plot from what is measured of the models as they are shipped."""
    models, real = collect(records, Setup(N, SEED, extractor.sha256))
    write_atomic(PAGE, page(models, real).encode())
    plot(models, real, PAGE.parent / IMAGE)


def collect(records: list[Record], setup: Setup) -> tuple[dict[str, Measured], Record]:
    """Every model's cells with their records, and the record of real images."""
    real = find(records, real_key(setup))
    if real is None:
        raise UsageError("nothing is measured with the shipped extractor", "measure first")
    models: dict[str, Measured] = {}
    for name in GRID:
        bundle = read_bundle(find_bundle(name))
        models[name] = [
            (cell, find(records, model_key(bundle, cell.program(bundle.spec), setup)))
            for cell in cells(name)
        ]
    return models, real


def flat(figures: ImageFigures) -> Record:
    """The figures of a record."""
    assert figures.classes is not None
    return {
        "frechet_distance": figures.frechet_distance,
        "kernel_distance": figures.kernel_distance,
        "sure": figures.classes.sure,
        **figures.manifold._asdict(),
    }


def read_records(path: Path) -> list[Record]:
    """All cells that are measured."""
    return read_json(path) if path.exists() else []


@contextlib.contextmanager
def alone(results: Path) -> Iterator[None]:
    """Keep other processes from the results and the page."""
    folder = os.open(results.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)  # and the lock with it


def keep(path: Path, record: Record) -> list[Record]:
    """Add a record to the results; returns all."""
    records = [*read_records(path), record]
    write_json(path, records)
    return records


if __name__ == "__main__":
    sys.exit(main())
