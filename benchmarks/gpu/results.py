"""What the GPU benchmark found: cells from journals, the figures that have limits, and the JSON."""

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

from common.candidates import COMPILE, PIPELINE
from common.figures import Figure
from common.timing import ratios

from gpu.candidates import HALVES, OURS, all_candidates

Key = tuple[str, int, str, str]  # model, batch, candidate, precision

FASTER_THAN_PIPELINE, FASTER_THAN_COMPILE, HOST_US, OF_MATMUL = 5.0, 1.5, 20.0, 0.5
ULPS = 8.0  # as the tests of the kernel's host build allow
ABSENT = "not measured"
MODEL = "cifar10"  # that the limits are for


@dataclass
class Cell:
    """A candidate in a precision, on a model at a batch.

    - `absent`: why it has no time
    - `ms`, `host_us`: of a step, in each round
    - `first_s`: until the end of the first two steps, with all that is built for them
    - `launches`, `kernels`: of a step, from the host and on the GPU
    - `step_error`, `psnr`: in single steps and in a run, against PyTorch in float32
    """

    absent: str = ""
    ms: list[float] = field(default_factory=list)
    host_us: list[float] = field(default_factory=list)
    first_s: float | None = None
    memory_mb: float | None = None
    launches: float | None = None
    kernels: float | None = None
    step_error: float | None = None
    step_limit: float | None = None
    psnr: float | None = None
    psnr_ran: bool = False
    psnr_limit: float | None = None


@dataclass
class Results:
    """All that journals told."""

    cells: dict[Key, Cell] = field(default_factory=dict)
    flops: dict[str, int] = field(default_factory=dict)  # of a model's network, for one sample
    programs: dict[str, str] = field(default_factory=dict)
    matmul: float | None = None  # FLOP/s of a bf16 product
    ulps: float | None = None
    no_ulps: str = ""

    def take(self, model: str, event: Mapping[str, Any]) -> None:
        """Take in one line of the journal of a part on this model."""
        values = dict(event)
        match values.pop("event"):
            case "cell":
                key = (model, *(values.pop(name) for name in ("batch", "candidate", "precision")))
                cell = self.cells.setdefault(key, Cell())
                cell.absent = ""  # an earlier try's
                for name, value in values.items():
                    setattr(cell, name, value)
            case "flops":
                self.flops[model] = values["flops"]
            case "program":
                self.programs[model] = values["program"]
            case "matmul":
                self.matmul = values["rate"]
            case "noise":
                self.ulps, self.no_ulps = values.get("ulps"), values.get("absent", "")

    def fill(self, groups: Iterable[tuple[str, int]], reason: str) -> None:
        """Say why, in every cell of these models and batches that nothing is known of."""
        for model, size in groups:
            for kind, precision in all_candidates():
                key = (model, size, kind.name, precision)
                cell = self.cells.setdefault(key, Cell())
                if not cell.ms and not cell.absent:
                    cell.absent = reason

    def fraction(self, key: Key) -> float | None:
        """Of the measured bf16 product's rate, that the network's FLOPs reach in a step's time."""
        cell, flops = self.cells[key], self.flops.get(key[0])
        if not cell.ms or flops is None or self.matmul is None:
            return None
        return key[1] * flops / (median(cell.ms) * 1e-3) / self.matmul

    def record(self, machine: Mapping[str, Any], setup: Mapping[str, Any]) -> dict[str, Any]:
        """Give what the JSON holds."""
        cells = [
            {
                **dict(zip(("model", "batch", "candidate", "precision"), key, strict=True)),
                **asdict(cell),
                # N images take 1000 times as long as a step.
                "images_per_second": key[1] / median(cell.ms) if cell.ms else None,
                "of_bf16": self.fraction(key),
            }
            for key, cell in self.cells.items()
        ]
        whole = {
            "benchmark": "gpu",
            "machine": dict(machine),
            "setup": dict(setup),
            "bf16_flops": self.matmul,
            "network_flops": self.flops,
            "programs": self.programs,
            "figures": [figure.record() for figure in figures(self)],
            "cells": cells,
        }
        # JSON has no infinity and no NaN, which a figure that fails may hold.
        return json.loads(json.dumps(whole), parse_constant=str)


def figures(results: Results) -> list[Figure]:
    """Make the figures that have a limit: parity first, then speed."""
    ulps = Figure(
        "noise kernel against numpy",
        [] if results.ulps is None else [results.ulps],
        unit="ulp",
        at_most=ULPS,
        absent=results.no_ulps or ABSENT,
    )
    return [ulps, *_parity(results), *_speed(results)]


def _parity(results: Results) -> list[Figure]:
    """The worst that each of this runtime's candidates did on any model and batch."""
    found = []
    for kind, precision in all_candidates():
        if not kind.ours:
            continue
        cells = [cell for key, cell in results.cells.items() if key[2:] == (kind.name, precision)]
        reasons = [cell.absent for cell in cells if cell.absent]
        name = f"{kind.name}, {precision}"
        errors = [cell for cell in cells if cell.step_limit is not None]
        found.append(
            Figure(
                f"{name}: step error",
                [max(map(_error, errors))] if errors else [],
                at_most=min((cell.step_limit for cell in errors if cell.step_limit), default=None),
                absent=reasons[0] if reasons else ABSENT,
            )
        )
        runs = [cell for cell in cells if cell.psnr_ran]
        if runs:
            limits = [cell.psnr_limit for cell in runs if cell.psnr_limit is not None]
            held = [cell for cell in runs if cell.psnr_limit is not None] or runs
            found.append(
                Figure(
                    f"{name}: whole run",
                    [min(math.nan if c.psnr is None else c.psnr for c in held)],
                    unit="dB",
                    at_least=max(limits, default=None),
                )
            )
    return found


def _error(cell: Cell) -> float:
    return math.inf if cell.step_error is None else cell.step_error


def _speed(results: Results) -> list[Figure]:
    one = _timed(results, 1)
    best = _fastest(one, lambda name, _: name in OURS)
    title = f"{MODEL}, batch 1"
    ours = "difftool's best" if best is None else f"{best[2]} {best[3]}"
    found = []
    for peer, limit in ((PIPELINE, FASTER_THAN_PIPELINE), (COMPILE, FASTER_THAN_COMPILE)):
        rival = _fastest(one, lambda name, _, peer=peer: name == peer)
        known = best is not None and rival is not None
        name = peer if rival is None else f"{peer} {rival[3]}"
        found.append(
            Figure(
                f"{title}: {name} / {ours}",
                _ratio(one[rival].ms, one[best].ms) if known else [],
                at_least=limit,
                absent=ABSENT,
            )
        )
    found.append(
        Figure(
            f"{title}: host time of a step, {ours}",
            one[best].host_us if best else [],
            unit="µs",
            at_most=HOST_US,
            absent=ABSENT,
        )
    )
    best = _fastest(
        _timed(results, 256), lambda name, precision: name in OURS and precision in HALVES
    )
    fraction = None if best is None else results.fraction(best)
    name = "difftool's best in 16 bits" if best is None else f"{best[2]} {best[3]}"
    found.append(
        Figure(
            f"{MODEL}, batch 256: part of the bf16 product's rate, {name}",
            [] if fraction is None else [fraction],
            at_least=OF_MATMUL,
            absent=ABSENT,
        )
    )
    return found


def _timed(results: Results, size: int) -> dict[Key, Cell]:
    return {
        key: cell for key, cell in results.cells.items() if key[:2] == (MODEL, size) and cell.ms
    }


def _fastest(cells: Mapping[Key, Cell], wanted: Callable[[str, str], bool]) -> Key | None:
    """The key of the fastest cell whose candidate and precision are wanted."""
    found = [key for key in cells if wanted(key[2], key[3])]
    return min(found, key=lambda key: median(cells[key].ms), default=None)


def _ratio(above: list[float], below: list[float]) -> list[float]:
    """Round by round, if both were timed in the same rounds."""
    if len(above) == len(below):
        return ratios(above, below)
    return [median(above) / median(below)]
