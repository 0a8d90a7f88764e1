"""docs/quality.md and its plot, from the measured cells."""

from pathlib import Path

from common.markdown import table
from common.sampler_cells import BASELINES, BATCH, NFE, Found, Measured

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

![Frechet distance by number of evaluations and milliseconds]({image})

*The bold line is the front: no program beats one of its points in both cost and distance. A
sampler costs its evaluations, so the milliseconds above the plot are those of one core for an
image of a batch of {batch}, by the number of evaluations.*

Choose a program of the front, by the time that you have. `difftool sample --quality` does so:
`draft`, `good` and `best` are the cheapest programs within 2, 1.2 and 1 times the least distance
that is measured in the bundle ([sampling](sampling.md#by-quality)).
"""

_MODEL = """\
## {model}

{finding}

{remark}{table}

The best of each column is bold. A dash marks what is not measured: a solver of an ODE has converged
after 50 evaluations, Langevin dynamics takes at least one at each of the model's 95 levels, and
with 1000 only the models' own samplers are of interest.{note}

{cost}The best sampler at each number of evaluations reaches these other figures:

{best}

The programs, at {few} evaluations:

{programs}
"""

_COST = """\
An evaluation takes one core {speed:.2f} ms for an image of a batch of {batch}; a guided one takes
twice as long.

"""

# What else is to be said of a model.
_REMARKS = {
    "ncsn-mnist": """\
`annealed_langevin` takes 1, 3 and 11 steps at each of the 95 levels, of the size that NCSNv2's
fourth technique gives for that number, and one more evaluation to denoise at the end. So its
columns are 96, 286 and 1046 evaluations.
"""
}


def page(found: Found) -> str:
    """Write the page."""
    introduction = _INTRODUCTION.format(**found.real, image=IMAGE, batch=BATCH)
    sections = [
        _section(model, measured, found.speeds.get(model))
        for model, measured in found.models.items()
    ]
    return "\n".join([introduction, *sections])


def front(measured: Measured) -> list[tuple[int, float]]:
    """List the evaluations and distances that no other cell beats in both, cheapest first."""
    found: list[tuple[int, float]] = []
    distances = _distances(measured)
    for (_, nfe), distance in sorted(distances.items(), key=lambda item: (item[0][1], item[1])):
        if not found or distance < found[-1][1]:
            found.append((nfe, distance))
    return found


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


def plot(found: Found, path: Path) -> None:
    """Draw the distances of each model over the number of evaluations, both logarithmic."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.ticker import LogLocator, NullFormatter

    models, real = found.models, found.real
    labels = list(dict.fromkeys(label for cells in models.values() for label in _labels(cells)))
    colours = {label: f"C{index % 10}" for index, label in enumerate(labels)}
    figure, panels = pyplot.subplots(1, len(models), figsize=(11, 5.2), layout="constrained")
    for panel, (model, measured) in zip(panels, models.items(), strict=True):
        for label, marker in zip(_labels(measured), "osv^D<>PX", strict=False):
            line = {nfe: d for (its, nfe), d in _distances(measured).items() if its == label}
            if line:
                style = {"color": colours[label], "marker": marker, "markersize": 4}
                panel.plot(list(line), list(line.values()), label=label, **style)
        best = front(measured)
        panel.plot(
            *zip(*best, strict=True) if best else ([], []),
            color="black",
            linewidth=3,
            alpha=0.35,
            label="front",
        )
        if model in found.speeds:
            ms = found.speeds[model]
            top = panel.secondary_xaxis(
                "top", functions=(lambda n, ms=ms: n * ms, lambda t, ms=ms: t / ms)
            )
            top.set_xlabel("milliseconds of one core for an image")
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


def _section(model: str, measured: Measured, speed: float | None) -> str:
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
    return _MODEL.format(
        model=model,
        finding=finding(model, measured),
        remark=_REMARKS[model] + "\n" if model in _REMARKS else "",
        table=table(
            ["sampler", *map(str, NFE)],
            [[label, *(text(label, nfe) for nfe in NFE)] for label in labels],
        ),
        note=note,
        cost=_COST.format(speed=speed, batch=BATCH) if speed is not None else "",
        best=table(["evaluations", "sampler", "sure", *names], best),
        few=FEW,
        programs="\n".join(f"- {label}: `{found[label, FEW]['program']}`" for label in few),
    )


def _labels(measured: Measured) -> list[str]:
    """List the lines of the table, in their order."""
    return list(dict.fromkeys(label for label, _ in measured))


def _distances(measured: Measured) -> dict[tuple[str, int], float]:
    return {key: record["frechet_distance"] for key, record in measured.items() if record}
