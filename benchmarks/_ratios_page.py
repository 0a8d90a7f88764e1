"""docs/benchmarks.md and the table in README.md, written from the results."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from _report import ROOT

RESULTS = ROOT / "benchmarks/results"
PAGE, README = ROOT / "docs/benchmarks.md", ROOT / "README.md"
BEGIN, END = "<!-- ratios: benchmarks/against_peers.py --report -->", "<!-- /ratios -->"

OURS = "difftool fp32"
SIDES = (
    OURS,
    "difftool bf16",
    "difftool int8",
    "difftool int8, openvino",
    "diffusers pipeline",
    "torch eager",
    "torch.compile",
    "onnxruntime, plain",
    "openvino f32, plain",
    "openvino bf16, plain",
)
MODELS: Mapping[str, str] = {
    "cifar10": "the U-Net of DDPM for CIFAR-10, 35.7 M parameters, random weights",
    "ddpm-mnist": "the shipped DDPM, 0.7 M parameters",
    "ncsn-mnist": "the shipped NCSN, 0.7 M parameters",
    "ncsnv2-cifar10": "NCSNv2 for CIFAR-10, random weights",
}
_IN_README = ("cifar10", "ddpm-mnist")
_OTHERS = ("int8_quality", "toy", "startup")  # whose lines stand in the list of goals, too

Record = Mapping[str, Any]
Results = Mapping[str, Record]  # by the benchmark's name

_INTRODUCTION = """\
# How fast is it?

*This page is written by `benchmarks/against_peers.py --report` from `benchmarks/results/`.*

A step is one evaluation of the network and the update around it. All sides of a table take turns in
one process with the same threads, and each must land where PyTorch lands, from the same states and
noise: one that does not is INVALID and has no time. The figure is the median of the rounds.
[benchmarks/README.md](../benchmarks/README.md) says how it is measured, and how to repeat it.
"""


def read_results(folder: Path = RESULTS) -> dict[str, Record]:
    """The results that are there, by name."""
    names = [*(f"peers-{model}" for model in MODELS), *_OTHERS]
    files = {name: folder / f"{name}.json" for name in names}
    return {name: json.loads(file.read_text()) for name, file in files.items() if file.is_file()}


def write_pages() -> None:
    """Write docs/benchmarks.md, and the marked part of README.md."""
    results = read_results()
    PAGE.write_text(page(results), encoding="utf-8")
    text = README.read_text(encoding="utf-8")
    README.write_text(with_block(text, readme_block(results)), encoding="utf-8")


def with_block(text: str, block: str) -> str:
    """A text whose marked part is `block`; ValueError where nothing is marked."""
    pattern = re.compile(f"{re.escape(BEGIN)}.*?{re.escape(END)}", re.DOTALL)
    if len(pattern.findall(text)) != 1:
        raise ValueError(f"{BEGIN} does not stand once")
    return pattern.sub(lambda _: f"{BEGIN}\n{block}\n{END}", text)


def readme_block(results: Results) -> str:
    """For a few models, how many times as long a step takes elsewhere."""
    parts = []
    for model in _IN_README:
        record = results.get(f"peers-{model}")
        if record is not None:
            headings, rows = _times(record, ratios=True)
            timed = [row for row in rows if any(cell[:1].isdigit() for cell in row[1:])]
            parts.append(f"Of {MODELS[model]}:\n\n{_table(headings, timed)}\n")
    if not parts:
        return "Not measured yet."
    machine = _machine(next(results[f"peers-{m}"] for m in _IN_README if f"peers-{m}" in results))
    head = (
        "How many times as long a sampling step takes as in this runtime in fp32, on the backend "
        f"that it chooses\nby itself ({machine}):\n"
    )
    return "\n".join([head, *parts]).rstrip()


def page(results: Results) -> str:
    """The page."""
    parts = [_INTRODUCTION, "## Goals\n", _goals(results), ""]
    for model, words in MODELS.items():
        record = results.get(f"peers-{model}")
        if record is None:
            continue
        program = record["setup"]["program"]
        parts += [
            f"## {model}\n",
            f"{words[0].upper()}{words[1:]}. {_machine(record)}; program `{program}`.\n",
            "Milliseconds of a step:\n",
            _table(*_times(record, ratios=False)),
            f"\nTimes as long as {OURS}:\n",
            _table(*_times(record, ratios=True)),
            "",
            *_reasons(record),
            *_profiles(record),
        ]
    if "toy" in results:
        parts += _toy(results["toy"])
    return "\n".join(parts).rstrip() + "\n"


def _toy(record: Record) -> list[str]:
    """The points in the plane, and what their products alone would leave of a step."""
    setup, found = record["setup"], {f["name"]: f["median"] for f in record["figures"]}
    times = {
        name.removeprefix("on onnxruntime-cpu, "): ms
        for name, ms in found.items()
        if name.startswith("on onnxruntime-cpu, ")
    }
    lines = [
        "## toy\n",
        f"{setup['points']} points in the plane take {setup['steps']} steps of annealed Langevin "
        f"dynamics, through an MLP of\n128 hidden units. {_machine(record)}. The loop in PyTorch "
        f"takes {found['torch loop / difftool']:.2f} times as long.\n",
    ]
    if not times:
        return lines
    whole = sum(times.values())
    most = found["torch loop / difftool"] * whole / times["Gemm"]
    rows = [[name, _number(ms), f"{ms / whole:.0%}"] for name, ms in times.items()]
    return [
        *lines,
        f"The matrix products alone are {times['Gemm'] / whole:.0%} of a step: with nothing else "
        f"to do the ratio would be {most:.1f}.\nWhere the time of a batch of "
        f"{setup['max_batch']} goes, on ONNX Runtime:\n",
        _table(["operator", "ms/step", "share"], rows),
        "",
    ]


def _goals(results: Results) -> str:
    """Every figure that has a limit."""
    rows = []
    for name, record in results.items():
        for figure in record["figures"]:
            limits = {"at most": figure["at_most"], "at least": figure["at_least"]}
            limit = ", ".join(f"{word} {value:g}" for word, value in limits.items() if value)
            if limit:
                reached = _number(figure["median"])
                unit = f" {figure['unit']}" if figure["unit"] else ""
                verdict = figure["verdict"] or figure.get("unjudged") or figure.get("absent")
                verdict = verdict or "not measured"
                model = name.removeprefix("peers-")
                rows.append([model, figure["name"], limit, reached + unit, verdict])
    if not rows:
        return "Not measured yet."
    return _table(["", "figure", "limit", "reached", "verdict"], rows)


def _times(record: Record, *, ratios: bool) -> tuple[list[str], list[list[str]]]:
    """Headings and rows of a model's table: sides by batches, in ms or as a multiple of ours."""
    found = {
        (int(match[1]), match[2]): figure
        for figure in record["figures"]
        if (match := re.fullmatch(r"batch (\d+): (.+)", figure["name"])) and match[2] in SIDES
    }
    sizes = sorted({size for size, _ in found})
    rows = []
    for side in SIDES:
        figures = [found.get((size, side)) for size in sizes]
        bases = [found.get((size, OURS)) for size in sizes]
        cells = [
            _cell(figure, base if ratios else None)
            for figure, base in zip(figures, bases, strict=True)
        ]
        if any(cells):
            rows.append([side, *cells])
    return ["", *(f"batch {size}" for size in sizes)], rows


def _cell(figure: Record | None, base: Record | None) -> str:
    if figure is None:
        return ""
    if figure["median"] is None:
        return "INVALID" if figure["absent"].startswith("INVALID") else "–"
    if base is None:
        return _number(figure["median"])
    return "" if base["median"] is None else f"{figure['median'] / base['median']:.2f}"


def _reasons(record: Record) -> list[str]:
    """Why sides have no time."""
    lines = [
        f"- {figure['name']}: {figure['absent']}"
        for figure in record["figures"]
        if figure.get("absent") and " / " not in figure["name"]
    ]
    return ["Without a time:\n", *lines, ""] if lines else []


def _profiles(record: Record) -> list[str]:
    """Where the time goes, of what was profiled."""
    rows = []
    for figure in record["figures"]:
        pattern = r"batch (\d+): (\w+) on onnxruntime-cpu, (\w+): (\d+%)"
        if match := re.fullmatch(pattern, figure["name"]):
            rows.append([match[1], match[2], match[3], _number(figure["median"]), match[4]])
    if not rows:
        return []
    headings = ["batch", "precision", "operator", "ms/step", "share"]
    return ["Where the time goes, on ONNX Runtime:\n", _table(headings, rows), ""]


def _machine(record: Record) -> str:
    machine, threads = record["machine"], record["setup"]["threads"]
    versions = [
        f"{name} {machine[name]}"
        for name in ("onnxruntime", "openvino", "torch", "diffusers")
        if name in machine
    ]
    cpu = f"{machine['cpu']} with {machine['instructions']}, {machine['cores']} cores"
    return f"{cpu}, threads {threads}, {', '.join(versions)}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [headings, ["---", *("---:" for _ in headings[1:])], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
