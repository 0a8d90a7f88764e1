"""The samplers that are compared on each shipped model, and what was measured of them."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from common.report import RESULTS
from difftool import Bundle, ModelSpec, Program
from difftool.diffusion import SamplerCall, compile_program
from difftool.errors import UsageError
from difftool.files import read_json, write_json
from difftool.runtime import open_bundle

NFE = (10, 20, 50, 100, 250, 1000)
_CONVERGED = 50  # a solver of an ODE gives the same samples with more evaluations
_SLOW = 250  # with more, only the models' own samplers are measured

Arguments = Mapping[str, Any]


class Line(NamedTuple):
    """One line of a model's table: a sampler with arguments, which may depend on the evaluations.

    `least` and `most` are the numbers of evaluations that are possible and worth measuring.
    """

    label: str
    sampler: str
    arguments: Callable[[int], Arguments]
    most: int = NFE[-1]
    least: int = NFE[0]


class Cell(NamedTuple):
    """One program to measure; `nfe` is the column of the table that it stands in."""

    model: str
    line: Line
    nfe: int

    def program(self, spec: ModelSpec) -> Program:
        """Compile the cell's program."""
        arguments = {"steps": self.nfe, **self.line.arguments(self.nfe)}
        return compile_program(spec, SamplerCall(self.line.sampler, arguments))


def cells(model: str) -> list[Cell]:
    """List all cells of a model's table, line by line."""
    return [
        Cell(model, line, nfe)
        for line in GRID[model]
        for nfe in NFE
        if line.least <= nfe <= line.most
    ]


def _always(**arguments: Any) -> Callable[[int], Arguments]:
    return lambda nfe: arguments


def _ancestral(variance: str) -> Callable[[int], Arguments]:
    """Give arguments of `ddpm`; on all levels spacings are alike, and the default has no name."""
    spaced = {"variance": variance, "spacing": "trailing"}
    return lambda nfe: {"variance": variance} if nfe == NFE[-1] else spaced


def _langevin(nfe: int) -> Arguments:
    """Give as many steps at each of the 95 levels as fit, and NCSNv2's step size for that."""
    each = {100: 1, 250: 3, 1000: 11}[nfe]
    return {"steps": 95 * each, "step_size": {1: 1.45e-5, 3: 1.26e-5, 11: 8.22e-6}[each]}


_TRAILING = _always(spacing="trailing")
_KARRAS = _always(spacing="karras")

# What few evaluations are compared with at 1000: a model's line, and what to call it.
BASELINES: Mapping[str, tuple[str, str]] = {
    "ddpm-mnist": ("ddpm, large variance", "Ancestral sampling (`ddpm, large variance`)"),
    "ncsn-mnist": ("annealed_langevin", "Annealed Langevin dynamics (`annealed_langevin`)"),
}

GRID: Mapping[str, list[Line]] = {
    "ddpm-mnist": [
        Line("ddpm, large variance", "ddpm", _ancestral("large")),
        Line("ddpm, small variance", "ddpm", _ancestral("small")),
        Line("dpmpp_2m_sde", "dpmpp_2m_sde", _TRAILING, _SLOW),
        *(
            Line(name, name, _TRAILING, _CONVERGED)
            for name in ("ddim", "plms", "heun", "dpmpp_2m", "dpmpp_3m", "unipc")
        ),
    ],
    "ncsn-mnist": [
        Line("annealed_langevin", "annealed_langevin", _langevin, least=100),
        Line("consistent_annealed", "consistent_annealed", _always(), _SLOW),
        Line("predictor_corrector", "predictor_corrector", _KARRAS, _SLOW),
        Line("euler_ancestral", "euler_ancestral", _KARRAS, _SLOW),
        Line("dpmpp_2m_sde", "dpmpp_2m_sde", _KARRAS, _SLOW),
        *(Line(name, name, _KARRAS, _CONVERGED) for name in ("ddim", "heun", "dpmpp_2m", "unipc")),
    ],
}

KEPT = RESULTS / "samplers.json"
N, SEED = 1000, 0  # of the page
REAL = "real images"
SPEED = "speed"
BATCH = 64  # images that run together when the time of an evaluation is measured

Record = dict[str, Any]
# Of every cell of a model, by label and number of evaluations: what was found.
Measured = Mapping[tuple[str, int], Record | None]


class Setup(NamedTuple):
    """The settings that all cells of a page have in common."""

    n: int
    seed: int
    extractor_sha256: str


def cell_key(setup: Setup, bundle: Bundle | None = None, program: Program | None = None) -> Record:
    """Give what makes two cells the same measurement, or two of real images."""
    weights = None if bundle is None else bundle.manifest.provenance.weights_sha256
    name = None if program is None else program.name
    return {"weights_sha256": weights, "program": name, **setup._asdict()}


def find(records: list[Record], key: Record) -> Record | None:
    """Find the record of a measurement, or None."""
    return next((record for record in records if key.items() <= record.items()), None)


def speed_key(bundle: Bundle) -> Record:
    """Give what makes two measurements of a model's speed the same."""
    return {"model": SPEED, "weights_sha256": bundle.manifest.provenance.weights_sha256}


class Found(NamedTuple):
    """What is measured: of each model its cells and speed, and of real images.

    A speed is the milliseconds of an evaluation, for one image of a batch.
    """

    models: Mapping[str, Measured]
    speeds: Mapping[str, float]
    real: Record


def collect(records: list[Record], setup: Setup) -> Found:
    """Collect what was measured with these settings."""
    real = find(records, cell_key(setup))
    if real is None:
        raise UsageError("nothing is measured with the shipped extractor", "measure first")
    models: dict[str, Measured] = {}
    speeds: dict[str, float] = {}
    for name in GRID:
        bundle = open_bundle(name)
        if (speed := find(records, speed_key(bundle))) is not None:
            speeds[name] = speed["ms"]
        models[name] = {
            (cell.line.label, cell.nfe): find(
                records, cell_key(setup, bundle, cell.program(bundle.spec))
            )
            for cell in cells(name)
        }
    return Found(models, speeds, real)


def read_records(path: Path) -> list[Record]:
    """Read all cells that are measured."""
    return read_json(path) if path.exists() else []


def keep(path: Path, record: Record) -> None:
    """Add a record to the results."""
    write_json(path, [*read_records(path), record])
