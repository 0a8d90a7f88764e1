"""benchmarks/results/gpu.md and gpu.json."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from statistics import median
from typing import Any

from _gpu_results import Cell, Key, Results
from _gpu_sides import all_sides
from _report import Figure

_INTRODUCTION = """\
# gpu

*This page is written by `benchmarks/gpu.py`.*

A step is one evaluation of the network and the update around it, noise included. All sides of a
table take turns in one process. The U-Net for CIFAR-10 has random weights. Every side starts single
steps from the same states and noise as PyTorch in float32, and must land where it lands: one that
does not is INVALID and has no time. Where the noise is this runtime's a whole run is compared, too.

- *images/s*: of runs of 1000 steps
- *launches*: of kernels and graphs by the host for a step; *kernels*: those that the GPU runs
- *host*: time until a step is enqueued, while the GPU is still at it
- *of bf16*: the network's FLOP/s as part of those of a bf16 product of 8192 x 8192 matrices
- *memory*: what the side takes of the GPU
- *first*: seconds until the end of the first two steps, with all that is built for them

Engines of TensorRT are built without TF32.
"""
_HEADINGS = (
    "side", "precision", "ms/step", "quartiles", "images/s", "launches", "kernels", "host, µs",
    "of bf16", "memory, MB", "first, s", "step error", "run, dB",
)  # fmt: skip


def page(
    results: Results,
    figures: Sequence[Figure],
    machine: Mapping[str, Any],
    groups: Sequence[tuple[str, int]],
) -> str:
    """The Markdown page; `machine` is empty where nothing was measured."""
    words = ", ".join(f"{key} {value}" for key, value in machine.items())
    parts = [_INTRODUCTION, f"Machine: {words}.\n" if machine else "Not yet measured: no GPU.\n"]
    if results.matmul is not None:
        parts.append(f"A bf16 product: {results.matmul / 1e12:.0f} TFLOP/s.\n")
    rows = [figure.cells() for figure in figures]
    parts += [
        "## Limits\n",
        "Errors are the worst of all models and batches. Speeds are those of the fastest "
        "precision, of peers as of this runtime.\n",
        _table(("figure", "median", "quartiles", "limit", "verdict"), rows),
    ]
    for model, size in groups:
        parts.append(f"\n## {model}, batch {size}\n")
        if model in results.programs:
            parts.append(f"Program `{results.programs[model]}`.\n")
        keys = [(model, size, kind.name, precision) for kind, precision in all_sides()]
        if all(not results.cells[key].ms for key in keys):
            parts += _only_reasons(results, keys)
        else:
            parts.append(_table(_HEADINGS, [_row(results, key) for key in keys]))
    return "\n".join(parts).rstrip() + "\n"


def record(
    results: Results,
    figures: Sequence[Figure],
    machine: Mapping[str, Any],
    setup: Mapping[str, Any],
) -> dict[str, Any]:
    """What the JSON holds."""
    cells = [
        {
            **dict(zip(("model", "batch", "side", "precision"), key, strict=True)),
            **asdict(cell),
            "images_per_second": _images(key, cell),
            "of_bf16": results.fraction(key),
        }
        for key, cell in results.cells.items()
    ]
    found = [{**asdict(f), "median": f.median, "verdict": f.verdict} for f in figures]
    whole = {
        "benchmark": "gpu",
        "machine": dict(machine),
        "setup": dict(setup),
        "bf16_flops": results.matmul,
        "network_flops": results.flops,
        "programs": results.programs,
        "figures": found,
        "cells": cells,
    }
    # JSON has no infinity and no NaN, which a figure that fails may hold.
    return json.loads(json.dumps(whole), parse_constant=str)


def _only_reasons(results: Results, keys: Sequence[Key]) -> list[str]:
    """A group without any time: its sides by their reasons."""
    reasons: dict[str, list[str]] = {}
    for key in keys:
        reasons.setdefault(results.cells[key].absent, []).append(f"{key[2]} {key[3]}")
    if len(reasons) == 1:
        return [f"No side has a time: {next(iter(reasons))}."]
    return [_table(("side", "why"), [(", ".join(n), why) for why, n in reasons.items()])]


def _row(results: Results, key: Key) -> tuple[str, ...]:
    cell = results.cells[key]
    whole = Figure(name="", values=cell.ms)
    return (
        key[2],
        key[3],
        _number(whole.median) if cell.ms else cell.absent,
        " .. ".join(map(_number, whole.quartiles or ())),
        _number(_images(key, cell)),
        _number(cell.launches),
        _number(cell.kernels),
        _number(median(cell.host_us) if cell.host_us else None),
        _number(results.fraction(key)),
        _number(cell.memory_mb),
        _number(cell.first_s),
        _number(cell.step_error),
        _number(cell.psnr),
    )


def _images(key: Key, cell: Cell) -> float | None:
    """Images/s of runs of 1000 steps: N images take 1000 times as long as a step."""
    return key[1] / median(cell.ms) if cell.ms else None


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [headings, ["---", *("---:" for _ in headings[1:])], *rows]
    return "\n".join(f"| {' | '.join(c.replace('|', '/') for c in line)} |" for line in lines)
