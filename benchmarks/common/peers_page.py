"""docs/benchmarks.md and the table in README.md, from the results."""

import re
from collections.abc import Mapping

from common.candidates import NAMES, OURS
from common.markdown import number, table
from common.report import Figure, Record, figures_in

MODELS: Mapping[str, str] = {
    "cifar10": "The U-Net of DDPM for CIFAR-10, 35.7 M parameters, random weights",
    "ddpm-mnist": "The shipped DDPM, 0.7 M parameters",
    "ncsn-mnist": "The shipped NCSN, 0.7 M parameters",
    "ncsnv2-cifar10": "NCSNv2 for CIFAR-10, random weights",
}
_IN_README = ("cifar10", "ddpm-mnist")
_OTHERS = ("int8_quality", "toy", "startup")  # whose lines stand in the list of goals, too
READS = (*(f"peers-{model}" for model in MODELS), *_OTHERS)

Results = Mapping[str, Record]  # by the benchmark's name

_INTRODUCTION = """\
# How fast is it?

*This page is written by `benchmarks/pages.py` from `benchmarks/results/`.*

A step is one evaluation of the network and the update around it. All candidates of a table take
turns in one process, with the same number of threads. Each starts from the same states and noise as
PyTorch and must end where PyTorch ends. A candidate that does not is INVALID and has no time. The
figures are medians over the rounds.

[benchmarks/README.md](../benchmarks/README.md) says how this is measured, and how to repeat it.
"""


def readme_block(results: Results) -> str:
    """Write how many times as long a step takes elsewhere, for a few models."""
    records = {name: results[f"peers-{name}"] for name in _IN_README if f"peers-{name}" in results}
    if not records:
        return "Not measured yet."
    machine = _machine(next(iter(records.values())))
    parts = [
        "A sampling step of difftool in fp32, on the backend that it chooses by itself, counts as "
        f"1.\nThe others take this many times as long. Measured on {machine}.\n"
    ]
    for model, record in records.items():
        headings, rows = _times(record, ratios=True)
        with_a_time = [row for row in rows if any(cell[:1].isdigit() for cell in row[1:])]
        parts.append(f"{MODELS[model]}:\n\n{table(headings, with_a_time)}\n")
    return "\n".join(parts).rstrip()


def page(results: Results) -> str:
    """Write the page."""
    parts = [_INTRODUCTION, "## Goals\n", _goals(results), ""]
    for model in MODELS:
        record = results.get(f"peers-{model}")
        if record is None:
            continue
        program = record["setup"]["program"]
        parts += [
            f"## {model}\n",
            f"{MODELS[model]}. {_machine(record)}; program `{program}`.\n",
            "Milliseconds of a step:\n",
            table(*_times(record, ratios=False)),
            f"\nHow many times as long as {OURS}:\n",
            table(*_times(record, ratios=True)),
            "",
            *_reasons(record),
            *_profiles(record),
        ]
    if "toy" in results:
        parts += _toy(results["toy"])
    return "\n".join(parts).rstrip() + "\n"


def _toy(record: Record) -> list[str]:
    """Write of the points in the plane, and what their products alone would leave of a step."""
    setup, found = record["setup"], {f.name: f.median for f in figures_in(record)}
    start, ratio = "on onnxruntime-cpu, ", found["torch loop / difftool"]
    times = {n.removeprefix(start): ms for n, ms in found.items() if n.startswith(start)}
    lines = [
        "## toy\n",
        f"{setup['points']} points in the plane take {setup['steps']} steps of annealed Langevin "
        f"dynamics, through an MLP of\n128 hidden units. {_machine(record)}. A loop in PyTorch "
        f"takes {ratio:.2f} times as long as difftool.\n",
    ]
    if not times:
        return lines
    whole = sum(times.values())
    rows = [[name, number(ms), f"{ms / whole:.0%}"] for name, ms in times.items()]
    return [
        *lines,
        f"The matrix products alone are {times['Gemm'] / whole:.0%} of a step. If they were all of "
        f"it, the ratio would be {ratio * whole / times['Gemm']:.1f}.\nThis is how ONNX Runtime "
        f"spends the time of a step, in batches of {setup['max_batch']}:\n",
        table(["operator", "ms/step", "share"], rows),
        "",
    ]


def _goals(results: Results) -> str:
    """List every figure that has a limit."""
    rows = [
        [
            name.removeprefix("peers-"),
            figure.name,
            figure.limit,
            number(figure.median) + f" {figure.unit}".rstrip(),
            figure.verdict or figure.unjudged or figure.absent or "not measured",
        ]
        for name, record in results.items()
        for figure in figures_in(record)
        if figure.limit
    ]
    if not rows:
        return "Not measured yet."
    return table(["", "figure", "limit", "reached", "verdict"], rows)


def _times(record: Record, *, ratios: bool) -> tuple[list[str], list[list[str]]]:
    """Give headings and rows of a table: candidates by batches, in ms or as multiples of ours."""
    found = {
        (int(match[1]), match[2]): figure
        for figure in figures_in(record)
        if (match := re.fullmatch(r"batch (\d+): (.+)", figure.name)) and match[2] in NAMES
    }
    sizes = sorted({size for size, _ in found})
    bases = {size: found.get((size, OURS)) if ratios else None for size in sizes}
    lines = [[name, *(_cell(found.get((n, name)), bases[n]) for n in sizes)] for name in NAMES]
    rows = [line for line in lines if any(line[1:])]
    return ["", *(f"batch {size}" for size in sizes)], rows


def _cell(figure: Figure | None, base: Figure | None) -> str:
    if figure is None:
        return ""
    if figure.median is None:
        return "INVALID" if figure.absent.startswith("INVALID") else "–"
    if base is None:
        return number(figure.median)
    return "" if base.median is None else f"{figure.median / base.median:.2f}"


def _reasons(record: Record) -> list[str]:
    """Say why candidates have no time."""
    lines = [
        f"- {figure.name}: {figure.absent}"
        for figure in figures_in(record)
        if figure.absent and " / " not in figure.name
    ]
    return ["Why some have no time:\n", *lines, ""] if lines else []


def _profiles(record: Record) -> list[str]:
    """Say where the time goes, if that was profiled."""
    pattern = r"batch (\d+): (\w+) on onnxruntime-cpu, (\w+): (\d+%)"
    rows = [
        [match[1], match[2], match[3], number(figure.median), match[4]]
        for figure in figures_in(record)
        if (match := re.fullmatch(pattern, figure.name))
    ]
    headings = ["batch", "precision", "operator", "ms/step", "share"]
    return ["How ONNX Runtime spends the time:\n", table(headings, rows), ""] if rows else []


def _machine(record: Record) -> str:
    machine, threads = record["machine"], record["setup"]["threads"]
    versions = [
        f"{name} {machine[name]}"
        for name in ("onnxruntime", "openvino", "torch", "diffusers")
        if name in machine
    ]
    cpu = f"{machine['cpu']} with {machine['instructions']}, {machine['cores']} cores"
    return f"{cpu}, threads {threads}, {', '.join(versions)}"
