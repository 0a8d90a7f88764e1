"""docs/quality.md and its plot, from the measured cells."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common.markdown import table
from common.sampler_grid import BASELINES, NFE, Cell

Record = Mapping[str, Any]
Measured = Sequence[tuple[Cell, Record | None]]  # every cell of a model, and what was found

FEW = 20  # evaluations that count as few
TOLERANCE = 1.1  # a distance up to this multiple of the baseline's counts as equal
IMAGE = "images/quality.png"

_INTRODUCTION = """\
# How good are few evaluations?

*This page is written by `benchmarks/pages.py` from `benchmarks/results/samplers.json`.*

Every sampler is compared at the same numbers of network evaluations, on both shipped models. The
figure is the Frechet distance between samples and MNIST's 10,000 test images, in the features of
the shipped extractor (see [evaluation.md](evaluation.md)). Less is better. It depends on the number
of samples, so {n} real images, which the extractor was not trained on, are the floor: they reach
{floor:.2f}. It has nothing to do with FID, whose features are others.

Setup: n {n}, seed {seed}, extractor `mnist` ({extractor}), ONNX Runtime on the CPU.

![Frechet distance by number of evaluations]({image})
"""

_MODEL = """\
## {model}

{finding}

{remark}{table}

The best of each column is bold. A dash: not measured, since the sampler solves an ODE and has
converged.{note}

What the best sampler at each number of evaluations reaches in the other figures:

{best}

The programs, at {few} evaluations:

{programs}
"""

# What else is to be said of a model.
_REMARKS = {
    "ncsn-mnist": """\
The noisiest level of `ncsn-mnist` has sigma 1, which does not drown the data. So samplers that
start from noise alone, all but `annealed_langevin`, start in the wrong place, and more evaluations
do not help: with the weights of an earlier, shorter training `dpmpp_2m` with 20 reached 39.2 from
noise, and 2.6 from real images under as much noise (200 samples). Langevin dynamics forgets where
it started.
"""
}


def page(models: Mapping[str, Measured], real: Record) -> str:
    """Write the page, from the cells of each model and what real images reach."""
    introduction = _INTRODUCTION.format(
        n=real["n"],
        seed=real["seed"],
        extractor=real["extractor_sha256"][:12],
        floor=real["frechet_distance"],
        image=IMAGE,
    )
    return "\n".join([introduction, *(_section(*item) for item in models.items())])


def finding(model: str, measured: Measured) -> str:
    """Say what few evaluations reach, compared with the model's own sampler at 1000."""
    label, name = BASELINES[model]
    found = [(cell, record) for cell, record in measured if record is not None]
    slow = [r for cell, r in found if (cell.line.label, cell.nfe) == (label, NFE[-1])]
    few = [(cell, record) for cell, record in found if cell.nfe <= FEW]
    if not slow or not few:
        return f"{name} with {NFE[-1]} evaluations, the yardstick, is not measured yet."
    distance = slow[0]["frechet_distance"]
    cell, best = min(few, key=lambda pair: pair[1]["frechet_distance"])
    ratio = best["frechet_distance"] / distance
    verdict = "reaches that" if ratio <= TOLERANCE else "comes closest to that"
    return (
        f"{name} with {NFE[-1]} evaluations reaches {distance:.2f}. With at most {FEW}, "
        f"`{cell.line.label}` {verdict}: {best['frechet_distance']:.2f} with {cell.nfe}, "
        f"{ratio:.2f} times as much."
    )


def plot(models: Mapping[str, Measured], real: Record, path: Path) -> None:
    """Draw the distances of each model over the number of evaluations, both logarithmic."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.ticker import LogLocator, NullFormatter

    labels = list(dict.fromkeys(label for cells in models.values() for label in _labels(cells)))
    colours = {label: f"C{index % 10}" for index, label in enumerate(labels)}
    figure, panels = pyplot.subplots(1, len(models), figsize=(11, 4.6), layout="constrained")
    for panel, (model, measured) in zip(panels, models.items(), strict=True):
        for label, marker in zip(_labels(measured), "osv^D<>PX", strict=False):
            points = [
                (cell.nfe, record["frechet_distance"])
                for cell, record in measured
                if record is not None and cell.line.label == label
            ]
            if points:
                x, y = zip(*points, strict=True)
                panel.plot(x, y, color=colours[label], marker=marker, markersize=4, label=label)
        panel.axhline(real["frechet_distance"], color="grey", linestyle=":", label="real images")
        panel.set(title=model, xlabel="evaluations", ylabel="Frechet distance")
        panel.set(xscale="log", yscale="log", xlim=(8, 1250))
        panel.set_xticks(NFE, [str(nfe) for nfe in NFE])
        panel.xaxis.set_minor_formatter(NullFormatter())
        panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        panel.yaxis.set_major_formatter("{x:g}")
        panel.yaxis.set_minor_formatter(NullFormatter())
        panel.legend(fontsize=8, frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    pyplot.close(figure)


def _section(model: str, measured: Measured) -> str:
    labels = _labels(measured)
    found = {(c.line.label, c.nfe): r for c, r in measured if r is not None}
    planned = {(cell.line.label, cell.nfe) for cell, _ in measured}
    winners = {
        nfe: min(rivals, key=lambda label: found[label, nfe]["frechet_distance"])
        for nfe in NFE
        if (rivals := [label for label in labels if (label, nfe) in found])
    }

    def text(label: str, nfe: int) -> str:
        if (label, nfe) not in planned:
            return "–"
        if (label, nfe) not in found:
            return ""
        value = f"{found[label, nfe]['frechet_distance']:.2f}"
        return f"**{value}**" if winners[nfe] == label else value

    rows = [[label, *(text(label, nfe) for nfe in NFE)] for label in labels]
    best = [
        [
            str(nfe),
            label,
            f"{100 * found[label, nfe]['sure']:.1f} %",
            *(f"{found[label, nfe][name]:.2f}" for name in ("precision", "recall", "coverage")),
        ]
        for nfe, label in winners.items()
    ]
    programs = [
        f"- {label}: `{found[label, FEW]['program']}`" for label in labels if (label, FEW) in found
    ]
    notes = []
    if len(found) < len(planned):
        notes.append(" An empty cell: not measured yet.")
    if any(record["nfe"] != nfe for (_, nfe), record in found.items()):
        notes.append(" `annealed_langevin` takes one evaluation more, to denoise at the end.")
    return _MODEL.format(
        model=model,
        finding=finding(model, measured),
        remark=_REMARKS[model] + "\n" if model in _REMARKS else "",
        table=table(["sampler", *map(str, NFE)], rows),
        note="".join(notes),
        best=table(["evaluations", "sampler", "sure", "precision", "recall", "coverage"], best),
        few=FEW,
        programs="\n".join(programs),
    )


def _labels(measured: Measured) -> list[str]:
    """List the lines of the table, in their order."""
    return list(dict.fromkeys(cell.line.label for cell, _ in measured))
