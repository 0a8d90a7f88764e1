"""benchmarks/results/gpu.md, from gpu.json."""

from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Any

from common.markdown import number, table, words
from common.report import HEADINGS as FIGURE
from common.report import Figure, Record, figures_in

_INTRODUCTION = """\
# gpu

*This page is written by `benchmarks/pages.py` from `benchmarks/results/gpu.json`.*

A step is one evaluation of the network and the update around it, noise included. All candidates of
a table take turns in one process. The U-Net for CIFAR-10 has random weights. Every candidate takes
single steps from the same states and noise as PyTorch in float32, and must end where PyTorch ends.
A candidate that does not is INVALID and has no time. A whole run is compared as well if it uses
difftool's noise. Each run of the benchmark is measured in stages; newer runs come first.

- *images/s*: of runs of 1000 steps
- *launches*: of kernels and graphs by the host for a step; *kernels*: those that the GPU runs
- *host*: time until the host has enqueued a step on an empty queue; the GPU is still computing it
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
    parts = [_INTRODUCTION, *(part for run in record["runs"] for part in _run(run))]
    return "\n".join(parts).rstrip() + "\n"


def _run(run: Record) -> Iterator[str]:
    yield f"## {run['name']}\n"
    yield f"Machine: {words(run['machine'])}.\n"
    yield f"Measured: {words(run['setup'])}.\n"
    if run["bf16_flops"] is not None:
        yield f"A bf16 product: {run['bf16_flops'] / 1e12:.0f} TFLOP/s.\n"
    yield "### Limits\n"
    yield (
        "Errors are the worst of all models and batches. Speeds are those of the fastest "
        "precision, for peers and for difftool, if none is named.\n"
    )
    yield table(FIGURE, [figure.cells() for figure in figures_in(run)])
    for title, rows in (("tests/gpu on the card", _tests(run)), ("Engines", _engines(run))):
        if rows:
            yield f"\n### {title}\n"
            yield table(("what", "result", "why"), rows)
    for model, size in sorted({(cell["model"], cell["batch"]) for cell in run["cells"]}):
        yield f"\n### {model}, batch {size}\n"
        if model in run["programs"]:
            yield f"Program `{run['programs'][model]}`.\n"
        cells = [c for c in run["cells"] if (c["model"], c["batch"]) == (model, size)]
        if any(cell["ms"] for cell in cells):
            yield table(_HEADINGS, [_row(cell) for cell in cells])
        else:
            yield _reasons(cells)
    yield ""


def _tests(run: Record) -> list[tuple[str, ...]]:
    """List tests that failed or could not run, and how many passed."""
    tests = [{"name": "all", "outcome": "", "why": "", **test} for test in run.get("tests", ())]
    passed = sum(test["outcome"] == "passed" for test in tests)
    rows = [(f"{passed} tests", "passed", "")] if passed else []
    others = (test for test in tests if test["outcome"] != "passed")
    return [*rows, *((test["name"], test["outcome"], _line(test["why"])) for test in others)]


def _engines(run: Record) -> list[tuple[str, ...]]:
    answers = {True: "loads", False: "does not load", None: "not tried"}
    return [
        (f"built for {e.get('built', '?')}, on {e.get('on') or '?'}", answers[e.get("loads")],
         _line(e["why"]))
        for e in run.get("engines", ())
    ]  # fmt: skip


def _line(text: str) -> str:
    return " ".join(text.split())[:200].replace("|", "/")


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
