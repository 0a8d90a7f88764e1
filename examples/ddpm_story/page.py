"""The tables of docs/ddpm.md, written from the figures between the page's marks."""

import re
from collections.abc import Sequence
from typing import Any, Final

Figures = dict[str, Any]

SHARES: Final = ("precision", "recall", "coverage", "sure")
_T: Final = ("100", "250", "500", "1000")


def tables(found: Figures) -> dict[str, str]:
    """Return each table or line of the page, by the name of its mark."""
    return {
        "size": size(found),
        "forward": forward(found["forward"]),
        "gaussian": gaussian(found),
        "bound": bound(found["bound"]),
        "weights": weights(found["weights"]),
        "told": told(found["told"]),
        "bits": bits(found["bits"]),
        "variance": variance(found["drawn"], found["size"]["samples"]),
        "models": models(found),
        "vae": trained(found["vae"]),
    }


def renewed(page: str, found: Figures) -> str:
    """Return the page with each table in its place; ValueError if a mark does not stand once."""
    for name, table in tables(found).items():
        begin, end = f"<!-- {name}: examples/ddpm.py -->", f"<!-- /{name} -->"
        pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
        if len(pattern.findall(page)) != 1:
            raise ValueError(f"{begin} does not stand once")
        block = f"{begin}\n{table}\n{end}"
        page = pattern.sub(lambda _, block=block: block, page)
    return page


def size(found: Figures) -> str:
    """Say how much was measured, and how long that took."""
    sizes = found["size"]
    return (
        f"This page was made with {sizes['images']} test images for the bound, "
        f"{sizes['samples']} samples in each set,\nand {found['minutes']:.1f} minutes of "
        "processor time."
    )


def forward(found: Figures) -> str:
    """Compare the closed form with the steps, from one start."""
    rows = [
        [t, *(f"{found[t][name]:.3f}" for name in ("mean", "points_mean", "std", "points_std"))]
        for t in _T
    ]
    heads = ("t", "mean, closed form", "of the points", "std, closed form", "of the points")
    return table(heads, rows)


def gaussian(found: Figures) -> str:
    """Show the bits that are lost, and how far samples are from the data, by steps."""
    lost, line = found["gaussian"], found["line"]
    rows = [
        [
            steps,
            *(number(each[name]) for name in ("best", "small", "large")),
            *(number(line[name][steps]) for name in ("small", "large")),
        ]
        for steps, each in lost.items()
    ]
    heads = (
        "T", "bits lost, best variance", "small", "large", "distance of samples, small", "large"
    )  # fmt: skip
    return table(heads, rows)


def bound(found: Figures) -> str:
    """Show the terms of the bound."""
    names = {"last": "L_T", "middle": "L_1 + ... + L_(T-1)", "first": "L_0", "total": "the bound"}
    rows = [
        [name, *(number(found[variance][key]) for variance in ("small", "large"))]
        for key, name in names.items()
    ]
    return table(("bits/dim", "small variance", "large variance"), rows)


def weights(found: Figures) -> str:
    """Show what share of each loss is in which levels."""
    rows = [
        [
            t,
            *(
                percent(each[name])
                for name in ("levels", "bound_weight", "simple_loss", "bound_loss")
            ),
        ]
        for t, each in found.items()
    ]
    heads = ("t", "weights in L_simple", "in the bound", "error in L_simple", "in the bound")
    return table(heads, rows)


def told(found: Figures) -> str:
    """Say how much the right time is worth."""
    errors = found["errors"]
    right = sum(row[i] for i, row in enumerate(errors)) / len(errors)
    middle = sum(row[len(errors) // 2] for row in errors) / len(errors)
    return (
        f"The mean over the nine rows is {right:.3f} if the network is told the true t, and\n"
        f"{middle:.3f} if it is always told the one in the middle."
    )


def bits(found: Figures) -> str:
    """Show the bound by the number of steps."""
    lengths = list(found["small"])
    rows = [
        [f"{name} variance", *(number(found[name][steps]) for steps in lengths)] for name in found
    ]
    return table(("bits/dim", *(f"{steps} steps" for steps in lengths)), rows)


def variance(found: Figures, samples: int) -> str:
    """Show the figures of samples by variance and steps."""
    rows = [
        [f"{name}, {steps} steps", *judged(each)]
        for name, by_steps in found.items()
        for steps, each in by_steps.items()
    ]
    return table((f"{samples} samples", "Frechet distance", *SHARES), rows)


def models(found: Figures) -> str:
    """Show all that is known of real images, of the DDPM, and of the VAE."""
    vae = found["vae"]
    rows = [["real images", *judged(found["real"]), "", ""]]
    for name, by_steps in found["drawn"].items():
        for steps, each in by_steps.items():
            costs = number(found["bits"][name][steps]), number(found["milliseconds"][steps])
            rows.append([f"DDPM, {name}, {steps} steps", *judged(each), *costs])
    rows.append(["VAE, means", *judged(vae["means"]), "", number(vae["milliseconds"])])
    costs = number(vae["bits"]), number(vae["milliseconds"])
    rows.append(["VAE, draws", *judged(vae["draws"]), *costs])
    return table(("", "Frechet distance", *SHARES, "bits/dim", "ms an image"), rows)


def trained(found: Figures) -> str:
    """Say how large the VAE is, and what its training took."""
    return (
        f"It has {found['parameters'] / 1e6:.2f} M parameters, and {found['steps']} training "
        f"steps of 128 images took {found['seconds']:.0f} seconds of\none core."
    )


def judged(found: Figures) -> list[str]:
    """Return the cells of a set of samples."""
    return [f"{found['frechet_distance']:.2f}", *(f"{found[name]:.2f}" for name in SHARES)]


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lay out a table, numbers to the right."""
    marks = ["---", *("---:" for _ in heads[1:])]
    return "\n".join(f"| {' | '.join(line)} |" for line in (heads, marks, *rows))


def number(value: float) -> str:
    """Write a number in three digits, or a whole number if it is large."""
    return (
        f"{value:.0f}"
        if abs(value) >= 100
        else f"{value:.3g}"
        if abs(value) < 1e-3
        else f"{value:#.3g}"
    )


def percent(value: float) -> str:
    """Write a share in percent."""
    return f"{100 * value:.1f} %"
