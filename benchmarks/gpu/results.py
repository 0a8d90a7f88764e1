"""The results of the GPU benchmark: cells from journals, the figures with limits, the JSON."""

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from statistics import median
from typing import Any

from common.candidates import COMPILE, PIPELINE
from common.report import Figure
from common.timing import ratios

from difftool.errors import UsageError
from gpu.candidates import ALL, AOT, GRAPHED, HALVES, OURS, SWEEP, all_candidates
from gpu.stages import STAGES

# A peer, at which batches, how many times as long its step takes at least, and in what precisions.
FASTER_THAN = (
    (PIPELINE, (1,), 5.0, ALL),
    (GRAPHED, (1,), 1.5, HALVES),
    (COMPILE, (1, 16, 64, 256), 1.0, HALVES),
)
TORCH = (GRAPHED, COMPILE, AOT)
HOST_US, OF_MATMUL = 20.0, 0.5
ULPS = 8.0  # as the tests of the kernel's host build allow
MODEL = "cifar10"  # that the limits are for
ABSENT = "not measured"
NAME = "gpu"
KEY = ("model", "batch", "candidate", "precision")

Key = tuple[str, int, str, str]


@dataclass
class Cell:
    """A candidate in a precision, on a model at a batch.

    - `absent`: why it has no time
    - `ms`, `host_us`: of a step, in each round
    - `first_s`: until the end of the first two steps, with all that is built for them
    - `launches`, `kernels`: of a step, from the host and on the GPU
    - `step_error`, `psnr`: in single steps and in a run, against PyTorch in float32; None with a
      limit, or if `psnr_ran`, stands for a number that is not finite
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
    tests: list[dict[str, Any]] = field(default_factory=list)  # of tests/gpu on the card
    engines: list[dict[str, Any]] = field(default_factory=list)  # built for another card

    def take(self, event: Mapping[str, Any]) -> None:
        """Take in one line of a journal."""
        values = dict(event)
        kind, model = values.pop("event"), values.pop("model", "")
        match kind:
            case "cell":
                key = (model, *(values.pop(name) for name in KEY[1:]))
                known = self.cells.get(key, Cell())
                if known.ms and values.get("absent"):
                    return  # an earlier stage had the time that this one lacked
                self.cells[key] = Cell(**{**vars(known), "absent": "", **values})
            case "model":
                self.flops[model], self.programs[model] = values["flops"], values["program"]
            case "machine":
                self.matmul, self.ulps = values["matmul"], values.get("ulps")
                self.no_ulps = values.get("no_ulps", "")
            case "test":
                self.tests.append(values)
            case "engine":
                self.engines.append(values)

    def fraction(self, key: Key | None) -> float | None:
        """Give the part of the measured bf16 product's rate that the network reaches in a step."""
        flops = self.flops.get(key[0]) if key else None
        if flops is None or self.matmul is None or not self.cells[key].ms:
            return None
        return key[1] * flops / (median(self.cells[key].ms) * 1e-3) / self.matmul

    def record(self, machine: Mapping[str, Any], setup: Mapping[str, Any]) -> dict[str, Any]:
        """Give what the JSON holds of a run; the candidates of a group have a fixed order."""
        order = {(kind.name, p): index for index, (kind, p) in enumerate(all_candidates())}
        found = sorted(self.cells.items(), key=lambda item: (*item[0][:2], order[item[0][2:]]))
        cells = [
            {
                **dict(zip(KEY, key, strict=True)),
                **asdict(cell),
                # N images take 1000 times as long as a step.
                "images_per_second": key[1] / median(cell.ms) if cell.ms else None,
                "of_bf16": self.fraction(key),
            }
            for key, cell in found
        ]
        whole = {
            "machine": dict(machine),
            "setup": dict(setup),
            "bf16_flops": self.matmul,
            "network_flops": self.flops,
            "programs": self.programs,
            "figures": [figure.record() for figure in figures(self)],
            "tests": self.tests,
            "engines": self.engines,
            "cells": cells,
        }
        # JSON has no infinity and no NaN, which a figure that fails may hold.
        return json.loads(json.dumps(whole), parse_constant=str)


def merged(stages: Mapping[str, Mapping[str, Any]], name: str | None = None) -> dict[str, Any]:
    """Make one run of what the stages found, by their names; a stage that lacks is said to lack.

    UsageError if they were measured on several machines.
    """
    machines = [stage["machine"] for stage in stages.values()]
    if len({machine["gpu"] for machine in machines}) > 1:
        raise UsageError("these stages ran on several GPUs", "merge the stages of one at a time")
    results = Results()
    setup = {}
    for stage in STAGES.values():
        if stage.name in stages:
            minutes = stages[stage.name]["setup"]["minutes"]
            setup[stage.name] = f"{minutes:g} minutes"
            for event in stages[stage.name]["events"]:
                results.take(event)
        else:
            setup[stage.name] = "not run"
    return {"name": name or machines[0]["gpu"], **results.record(machines[0], setup)}


def figures(results: Results) -> list[Figure]:
    """Make the figures that have a limit: parity first, then speed."""
    ulps = [value for value in [results.ulps] if value is not None]
    absent = results.no_ulps or ABSENT
    noise = Figure("noise kernel against numpy", ulps, unit="ulp", at_most=ULPS, absent=absent)
    ran = [test["outcome"] for test in results.tests if test.get("outcome") in ("passed", "failed")]
    failed = [float(ran.count("failed"))] if ran else []
    tests = Figure("tests/gpu on the card: failures", failed, at_most=0, absent=ABSENT)
    swept = [kind for kind, _ in SWEEP]
    ours = [(kind.name, p) for kind, p in all_candidates() if kind.ours and kind not in swept]
    parity = [figure for names in ours for figure in _parity(results, names)]
    return [tests, noise, *parity, *_speed(results)]


def _parity(results: Results, names: tuple[str, str]) -> Iterable[Figure]:
    """Give the worst that a candidate of ours did in a precision, on any model and batch."""
    cells = [cell for key, cell in results.cells.items() if key[2:] == names]
    title = ", ".join(names)
    compared = [cell for cell in cells if cell.step_limit is not None]
    errors = [math.inf if cell.step_error is None else cell.step_error for cell in compared]
    yield Figure(
        f"{title}: step error",
        [max(errors)] if errors else [],
        at_most=min((cell.step_limit for cell in compared if cell.step_limit), default=None),
        absent=next((cell.absent for cell in cells if cell.absent), ABSENT),
    )
    runs = [cell for cell in cells if cell.psnr_ran]
    held = [cell for cell in runs if cell.psnr_limit is not None]
    if runs:
        found = [math.nan if cell.psnr is None else cell.psnr for cell in held or runs]
        worst = math.nan if any(map(math.isnan, found)) else min(found)
        limit = max((cell.psnr_limit for cell in held if cell.psnr_limit), default=None)
        yield Figure(f"{title}: whole run", [worst], unit="dB", at_least=limit)


def _speed(results: Results) -> Iterable[Figure]:
    def fastest(size: int, wanted: Callable[[str, str], bool]) -> Key | None:
        """Find the fastest cell of a batch whose candidate and precision are wanted."""
        timed = {k: cell.ms for k, cell in results.cells.items() if k[:2] == (MODEL, size)}
        found = [key for key, ms in timed.items() if ms and wanted(*key[2:])]
        return min(found, key=lambda key: median(timed[key]), default=None)

    def name(key: Key | None, otherwise: str) -> str:
        return otherwise if key is None else f"{key[2]} {key[3]}"

    def against(size: int, peers: Iterable[str], precisions: Iterable[str], what: str) -> Figure:
        """Compare the fastest of ours with the fastest of these peers, in these precisions."""
        best = fastest(size, lambda who, precision: who in OURS and precision in precisions)
        rival = fastest(size, lambda who, precision: who in peers and precision in precisions)
        times = _ratio(cells[rival].ms, cells[best].ms) if best and rival else []
        title = f"{MODEL}, batch {size}: {name(rival, what)} / {name(best, 'difftool')}"
        return Figure(title, times, absent=ABSENT)

    cells = results.cells
    for peer, sizes, limit, precisions in FASTER_THAN:
        for size in sizes:
            yield replace(against(size, [peer], precisions, peer), at_least=limit)
    # The peers round to TF32 by default and we do not, so both are shown, each against its like.
    for precision in ("fp32", "tf32"):
        for size in (1, 256):
            yield against(size, TORCH, [precision], f"torch's fastest {precision}")
    best = fastest(1, lambda who, _: who in OURS)
    ours, title = name(best, "difftool's best"), f"{MODEL}, batch 1"
    host, title = cells[best].host_us if best else [], f"{title}: host time of a step, {ours}"
    yield Figure(title, host, unit="µs", at_most=HOST_US, absent=ABSENT)
    best = fastest(256, lambda who, precision: who in OURS and precision in HALVES)
    ours = name(best, "difftool's best in 16 bits")
    part = [value for value in [results.fraction(best)] if value is not None]
    title = f"{MODEL}, batch 256: part of the bf16 product's rate, {ours}"
    yield Figure(title, part, at_least=OF_MATMUL, absent=ABSENT)


def _ratio(above: list[float], below: list[float]) -> list[float]:
    """Divide round by round, if both were timed in the same rounds."""
    same = len(above) == len(below)
    return ratios(above, below) if same else [median(above) / median(below)]
