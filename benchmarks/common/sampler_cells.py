"""The measured cells of the samplers' tables: what makes two the same, and where they are kept."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from common.inside import Bundle, UsageError, find_bundle, read_bundle, read_json, write_json
from common.report import RESULTS
from common.sampler_grid import GRID, cells
from common.samplers_page import Measured
from difftool import Program

KEPT = RESULTS / "samplers.json"
N, SEED = 500, 0  # of the page
REAL = "real images"

Record = dict[str, Any]


class Setup(NamedTuple):
    """What all cells of a page have in common."""

    n: int
    seed: int
    extractor_sha256: str


def model_key(bundle: Bundle, program: Program, setup: Setup) -> Record:
    """Give what makes two cells the same measurement."""
    weights = bundle.manifest.provenance.weights_sha256
    return {"weights_sha256": weights, "program": program.name, **setup._asdict()}


def real_key(setup: Setup) -> Record:
    """Give the same for real images."""
    return {"weights_sha256": None, "program": None, **setup._asdict()}


def find(records: list[Record], key: Record) -> Record | None:
    """Find the record of a measurement, or None."""
    for record in records:
        if all(record[name] == value for name, value in key.items()):
            return record
    return None


def collect(records: list[Record], setup: Setup) -> tuple[dict[str, Measured], Record]:
    """Collect every model's cells with their records, and the record of real images."""
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


def read_records(path: Path) -> list[Record]:
    """Read all cells that are measured."""
    return read_json(path) if path.exists() else []


def keep(path: Path, record: Record) -> None:
    """Add a record to the results."""
    write_json(path, [*read_records(path), record])


@contextlib.contextmanager
def alone(results: Path) -> Iterator[None]:
    """Keep other processes from the results and the page."""
    folder = os.open(results.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)  # and the lock with it
