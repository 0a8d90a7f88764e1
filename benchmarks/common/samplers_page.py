"""docs/quality.md and its plot, from the measured cells."""

from collections.abc import Mapping
from pathlib import Path

from common.markdown import table
from common.sampler_cells import BASELINES, NFE, Measured, Record

FEW = 20  # evaluations that count as few
TOLERANCE = 1.1  # a distance up to this multiple of the baseline's counts as equal
IMAGE = "images/quality.png"

_INTRODUCTION = """\
# How good are few evaluations?

*This page is written by `benchmarks/pages.py` from `benchmarks/results/samplers.json`.*

This page compares the samplers at equal numbers of network evaluations, on both shipped models.

The figure is the Frechet distance between samples and MNIST's 10,000 test images, in the features
of the shipped extractor ([evaluation](evaluation.md) explains both). Less is better. The distance
depends on the number of samples, so compare it with the same number of real images, which the
extractor was not trained on: they reach
{frechet_distance:.2f}. It cannot be compared with FID, which uses other features.

Setup: n {n}, seed {seed}, extractor `mnist` ({extractor_sha256:.12}), ONNX Runtime on the CPU.

![Frechet distance by number of evaluations]({image})
"""

_MODEL = """\
## {model}

{finding}

{remark}{table}

The best of each column is bold. A dash marks what is not measured because the sampler solves an
ODE and has converged by then.{note}

The best sampler at each number of evaluations reaches these other figures:

{best}

The programs, at {few} evaluations:

{programs}
"""

# What else is to be said of a model.
_REMARKS = {
    "ncsn-mnist": """\
The noisiest level of `ncsn-mnist` has sigma 1, and data are still visible under that much noise.
All samplers except `annealed_langevin` start from noise alone, which is the wrong place here, and
more evaluations do not help. An earlier, shorter training showed this: `dpmpp_2m` with 20
evaluations reached 39.2 from noise, and 2.6 from real images under as much noise (200 samples).
Langevin dynamics forgets where it started.
"""
}


def page(models: Mapping[str, Measured], real: Record) -> str:
    """Write the page, from the cells of each model and what real images reach."""
    introduction = _INTRODUCTION.format(**real, image=IMAGE)
    return "\n".join([introduction, *(_section(*item) for item in models.items())])


def finding(model: str, measured: Measured) -> str:
    """Say what few evaluations reach, compared with the model's own sampler at 1000."""
    label, name = BASELINES[model]
    distances = _distances(measured)
    slow = distances.get((label, NFE[-1]))
    few = {key: distance for key, distance in distances.items() if key[1] <= FEW}
    if slow is None or not few:
        return f"{name} with {NFE[-1]} evaluations, the reference here, is not measured yet."
    best, nfe = min(few, key=few.__getitem__)
    ratio = few[best, nfe] / slow
    verdict = "reaches that" if ratio <= TOLERANCE else "comes closest to that"
    return (
        f"{name} with {NFE[-1]} evaluations reaches {slow:.2f}. With at most {FEW}, `{best}` "
        f"{verdict}: {few[best, nfe]:.2f} with {nfe}, {ratio:.2f} times as much."
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
            line = {nfe: d for (its, nfe), d in _distances(measured).items() if its == label}
            if line:
                style = {"color": colours[label], "marker": marker, "markersize": 4}
                panel.plot(list(line), list(line.values()), label=label, **style)
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
    labels, distances = _labels(measured), _distances(measured)
    winners = {
        nfe: min(rivals, key=lambda label: distances[label, nfe])
        for nfe in NFE
        if (rivals := [label for label in labels if (label, nfe) in distances])
    }

    def text(label: str, nfe: int) -> str:
        if (label, nfe) not in distances:
            return "" if (label, nfe) in measured else "–"
        value = f"{distances[label, nfe]:.2f}"
        return f"**{value}**" if winners[nfe] == label else value

    names = ("precision", "recall", "coverage")
    found = {key: record for key, record in measured.items() if record}
    best = []
    for nfe, label in winners.items():
        record = found[label, nfe]
        sure = f"{100 * record['sure']:.1f} %"
        best.append([str(nfe), label, sure, *(f"{record[name]:.2f}" for name in names)])
    few = [label for label in labels if (label, FEW) in found]
    note = " An empty cell is not measured yet." if len(found) < len(measured) else ""
    if any(record["nfe"] != nfe for (_, nfe), record in found.items()):
        note += " `annealed_langevin` takes one more evaluation, to denoise at the end."
    return _MODEL.format(
        model=model,
        finding=finding(model, measured),
        remark=_REMARKS[model] + "\n" if model in _REMARKS else "",
        table=table(
            ["sampler", *map(str, NFE)],
            [[label, *(text(label, nfe) for nfe in NFE)] for label in labels],
        ),
        note=note,
        best=table(["evaluations", "sampler", "sure", *names], best),
        few=FEW,
        programs="\n".join(f"- {label}: `{found[label, FEW]['program']}`" for label in few),
    )


def _labels(measured: Measured) -> list[str]:
    """List the lines of the table, in their order."""
    return list(dict.fromkeys(label for label, _ in measured))


def _distances(measured: Measured) -> dict[tuple[str, int], float]:
    return {key: record["frechet_distance"] for key, record in measured.items() if record}
