"""benchmarks/results/gpu.md, from gpu.json."""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from common.markdown import number, table, words
from common.report import HEADINGS as FIGURE
from common.report import Figure, Record, figures_in

from gpu.candidates import all_candidates

_INTRODUCTION = """\
# gpu

*This page is written by `benchmarks/pages.py` from `benchmarks/results/gpu.json`.*

A step is one evaluation of the network and the update around it, noise included. All candidates of
a table take turns in one process. The U-Net for CIFAR-10 has random weights. Every candidate takes
single steps from the same states and noise as PyTorch in float32, and must end where PyTorch ends.
A candidate that does not is INVALID and has no time. A whole run is compared as well if it uses
difftool's noise.

- *images/s*: of runs of 1000 steps
- *launches*: of kernels and graphs by the host for a step; *kernels*: those that the GPU runs
- *host*: time until the host has enqueued a step; the GPU is still computing it
- *of bf16*: the network's FLOP/s, as a part of those of a bf16 product of 8192 x 8192 matrices
- *memory*: GPU memory that the candidate takes
- *first*: seconds until the end of the first two steps, including everything built for them

TensorRT engines are built without TF32.
"""
_HEADINGS = (
    "candidate", "precision", "ms/step", "quartiles", "images/s", "launches", "kernels",
    "host, µs", "of bf16", "memory, MB", "first, s", "step error", "run, dB",
)  # fmt: skip

CellRecord = Mapping[str, Any]


def page(record: Record) -> str:
    """Write the page."""
    parts = [_INTRODUCTION, f"Machine: {words(record['machine'])}.\n"]
    if record["bf16_flops"] is not None:
        parts.append(f"A bf16 product: {record['bf16_flops'] / 1e12:.0f} TFLOP/s.\n")
    parts += [
        "## Limits\n",
        "Errors are the worst of all models and batches. Speeds are those of the fastest "
        "precision, for peers and for difftool.\n",
        table(FIGURE, [figure.cells() for figure in figures_in(record)]),
    ]
    order = [(kind.name, precision) for kind, precision in all_candidates()]
    for model, size in sorted({(cell["model"], cell["batch"]) for cell in record["cells"]}):
        parts.append(f"\n## {model}, batch {size}\n")
        if model in record["programs"]:
            parts.append(f"Program `{record['programs'][model]}`.\n")
        cells = [c for c in record["cells"] if (c["model"], c["batch"]) == (model, size)]
        cells.sort(key=lambda cell: order.index((cell["candidate"], cell["precision"])))
        if any(cell["ms"] for cell in cells):
            parts.append(table(_HEADINGS, [_row(cell) for cell in cells]))
        else:
            parts.append(_reasons(cells))
    return "\n".join(parts).rstrip() + "\n"


def _reasons(cells: Sequence[CellRecord]) -> str:
    """List the candidates of a group without any time by their reasons."""
    reasons: dict[str, list[str]] = {}
    for cell in cells:
        name = f"{cell['candidate']} {cell['precision']}"
        reasons.setdefault(cell["absent"], []).append(name)
    if len(reasons) == 1:
        return f"No candidate has a time: {next(iter(reasons))}."
    return table(("candidate", "why"), [(", ".join(n), why) for why, n in reasons.items()])


def _row(cell: CellRecord) -> tuple[str, ...]:
    whole = Figure("", cell["ms"])
    return (
        cell["candidate"],
        cell["precision"],
        number(whole.median) if cell["ms"] else cell["absent"],
        " .. ".join(map(number, whole.quartiles or ())),
        *(number(cell[name]) for name in ("images_per_second", "launches", "kernels")),
        number(median(cell["host_us"]) if cell["host_us"] else None),
        *(number(cell[name]) for name in ("of_bf16", "memory_mb", "first_s", "step_error", "psnr")),
    )
