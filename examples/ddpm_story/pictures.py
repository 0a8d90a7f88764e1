"""The pictures of docs/ddpm.md."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
from ddpm_story import bound, chain
from ddpm_story.measured import Figures, Found, Pixels, Size, stepped
from numpy.typing import ArrayLike, NDArray

import difftool
from difftool.plot.style import COLOURS, DATA, INK, LEARNED, RAMP, blank
from difftool.runtime import grid

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = NDArray[np.float64]

VARIANCE: Final = {"small": LEARNED, "large": DATA}  # colours
_LINE: Final = np.linspace(-3.2, 3.2, 801)
_MIDDLE: Final = 400  # the level from which steps of several lengths are drawn


def draw_forward(points: int) -> "Figure":
    """Draw the density of all data on its way to noise, and that of one point at some t."""
    schedule = chain.SPEC.schedule
    betas = 1 - schedule.alpha_bar / np.append(1.0, schedule.alpha_bar[:-1])
    with blank(8.6, 3.1) as figure:
        left, right = figure.subplots(1, 2, width_ratios=(1.25, 1))
        times = np.arange(0, 1001, 5)
        levels = [chain.level_at(t - 1 if t else None) for t in times]
        found = [np.exp(chain.forward(chain.DATA, level).log_density(_LINE)) for level in levels]
        left.pcolormesh(times, _LINE, np.array(found).T, cmap="Blues", vmax=0.8, rasterized=True)
        starts = np.repeat(chain.DATA.means, 6) + 0.2 * np.linspace(-1, 1, 12)
        left.plot(times, stepped(starts, betas)[::5], color=INK, linewidth=0.5, alpha=0.7)
        left.set_xticks(np.arange(0, 1001, 250))
        left.set(title="q(x_t), and points on their way", xlabel="t", ylabel="x")
        start = float(chain.DATA.means[1])
        walked = stepped(np.full(points, start), betas)
        for colour, t in zip(COLOURS, (100, 250, 500, 1000), strict=False):
            alpha, sigma = chain.level_at(t - 1)
            right.hist(walked[t], 80, range=(-3.2, 3.2), density=True, color=colour, alpha=0.3)
            curve = np.exp(-((_LINE - alpha * start) ** 2) / (2 * sigma**2))
            right.plot(_LINE, curve / (sigma * np.sqrt(2 * np.pi)), color=colour, label=f"t = {t}")
        right.set(title=f"q(x_t | x_0 = {start:g})", xlabel="x", yticks=[])
        right.legend()
    return figure


def draw_posterior() -> "Figure":
    """Draw the exact reverse step beside Gaussians, for steps of four lengths from one point."""
    source = chain.level_at(_MIDDLE)
    x = undecided(source)
    lengths = (400, 250, 100, 1)
    with blank(8.6, 2.7) as figure:
        axes = figure.subplots(1, len(lengths))
        for axis, length in zip(axes, lengths, strict=True):
            target = chain.level_at(_MIDDLE - length)
            exact = chain.reverse(chain.DATA, x, source, target)
            mean, variance = (float(value) for value in exact.moments())
            reach = 3.6 * np.sqrt(variance)
            line = np.linspace(mean - reach, mean + reach, 401)
            density = np.exp(exact.log_density(line))
            axis.fill_between(line, density, color=DATA, alpha=0.3, linewidth=0)
            axis.plot(line, density, color=DATA, label="exact")
            a, b, posterior = chain.posterior(source, target)
            for weight, x0 in zip(exact.weights, chain.DATA.means, strict=True):
                curve = weight * gaussian(line, a * x + b * x0, posterior)
                axis.plot(line, curve, color=LEARNED, linewidth=0.9, label="posterior of a mode")
            axis.plot(line, gaussian(line, mean, variance), "--", color=INK, label="Gaussian")
            top = 1.25 * max(density.max(), gaussian(mean, mean, variance))
            title = "one step" if length == 1 else f"{length} steps at once"
            axis.set(title=title, xlabel="x", yticks=[], ylim=(0, top))
            axis.locator_params(axis="x", nbins=4)
        handles, labels = axes[0].get_legend_handles_labels()
        unique = dict(zip(labels, handles, strict=True))
        figure.legend(unique.values(), unique.keys(), loc="outside lower center", ncols=3)
    return figure


def draw_gaussian(line: dict[tuple[str, int], Array], lengths: Sequence[int]) -> "Figure":
    """Draw the bits that Gaussian steps lose by the length of a chain, and what chains draw."""
    lost = [chain.lost(chain.DATA, steps) for steps in lengths]
    shown = sorted({steps for _, steps in line})[:4]
    with blank(8.6, 3.1) as figure:
        left, *others = figure.subplots(1, 3, width_ratios=(1.15, 1, 1))
        colours = {"best": INK, **VARIANCE}
        for name, colour in colours.items():
            left.loglog(lengths, [found[name] for found in lost], ".-", color=colour, label=name)
        left.set(title="bits lost by Gaussian steps", xlabel="steps T")
        left.grid(True)
        left.legend()
        edges = np.linspace(-2.6, 2.6, 131)
        centres = (edges[1:] + edges[:-1]) / 2
        for axis, name in zip(others, VARIANCE, strict=True):
            axis.fill_between(
                _LINE, np.exp(chain.DATA.log_density(_LINE)), color=INK, alpha=0.18, linewidth=0
            )
            for shade, steps in zip(np.linspace(0.85, 0.1, len(shown)), shown, strict=True):
                density, _ = np.histogram(line[name, steps], edges, density=True)
                axis.plot(centres, density, color=ramp(shade), linewidth=1.1, label=f"T = {steps}")
            axis.set(title=f"samples, {name} variance", xlabel="x", yticks=[], xlim=(-2.6, 2.6))
            axis.set_ylim(0, 2.4)
        others[0].legend()
    return figure


def draw_bound(spec: difftool.ModelSpec, errors: bound.Errors) -> "Figure":
    """Draw the terms of the bound by t, and their sum from the noise on."""
    whole = bound.chain(spec, np.arange(len(spec.schedule)))
    t = np.arange(1, len(spec.schedule) + 1)
    with blank(8.6, 3.1) as figure:
        left, right = figure.subplots(1, 2)
        for name, colour in VARIANCE.items():
            terms = bound.terms(errors, spec, whole, name)[:-1]
            left.loglog(t[1:], terms[1:], color=colour, label=f"{name} variance")
            left.loglog(t[:1], terms[:1], "o", color=colour)
            right.semilogx(t, np.cumsum(terms[::-1])[::-1], color=colour, label=f"{name} variance")
        left.annotate("L_0", (1.3, terms[0]), fontsize=9, color=INK, va="center")
        left.set(title="L_(t-1) in bits/dim", xlabel="t")
        right.set(title="bits/dim of all steps from T down to t", xlabel="t")
        right.set_ylim(bottom=0)
        left.legend()
        for axis in (left, right):
            axis.grid(True)
    return figure


def draw_weights(spec: difftool.ModelSpec, errors: bound.Errors) -> "Figure":
    """Draw the weights of bound and simple loss by t, and the error that they weigh."""
    t = np.arange(2, len(spec.schedule) + 1)
    with blank(8.6, 3.1) as figure:
        left, right = figure.subplots(1, 2)
        for name, colour in VARIANCE.items():
            left.loglog(t, bound.weights(spec, name), color=colour, label=f"bound, {name} variance")
        left.axhline(1, color=INK, label="L_simple")
        left.set(title="weight of the squared error", xlabel="t")
        left.legend()
        right.loglog(t, errors.noise[1:], color=INK, label="error")
        right.loglog(
            t,
            bound.weights(spec, "large") * errors.noise[1:],
            color=DATA,
            label="times bound's weight",
        )
        right.set(title="mean squared error of the noise", xlabel="t")
        right.legend()
        for axis in (left, right):
            axis.grid(True)
    return figure


def draw_embedding(levels: Sequence[int], told: Array) -> "Figure":
    """Draw the embedding of all t, and the errors if the network is told another t."""
    half = 32
    angles = np.arange(1000)[:, None] * 10000.0 ** (-np.arange(half) / (half - 1))
    waves = np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
    with blank(8.6, 3.5) as figure:
        left, right = figure.subplots(1, 2, width_ratios=(1.3, 1))
        left.imshow(waves.T, aspect="auto", cmap="RdBu", interpolation="nearest", rasterized=True)
        left.set(title="the embedding of t", xlabel="t", ylabel="sines, then cosines")
        left.set_yticks([0, 31, 63], ["1", "32", "64"])
        times = told / np.diag(told)[:, None]
        right.imshow(np.log(times), cmap="Reds", vmin=0, vmax=np.log(1000))
        for (row, column), ratio in np.ndenumerate(times):
            text = f"{ratio:.1f}" if ratio < 10 else f"{ratio:.0f}"
            colour = "white" if ratio > 30 else INK
            right.text(column, row, text, ha="center", va="center", fontsize=6.5, color=colour)
        names = [str(level + 1) for level in levels]
        right.set_xticks(range(len(levels)), names, fontsize=7)
        right.set_yticks(range(len(levels)), names, fontsize=7)
        right.set(
            title="error, relative to the true t", xlabel="t that it is told", ylabel="true t"
        )
    return figure


def draw_variance(drawn: dict[tuple[str, int], Pixels]) -> "Figure":
    """Draw the same first samples by either variance and by chains of several lengths."""
    lengths = sorted({steps for _, steps in drawn})
    with blank(8.6, 3.0) as figure:
        axes = figure.subplots(2, len(lengths))
        for row, name in zip(axes, VARIANCE, strict=True):
            for axis, steps in zip(row, lengths, strict=True):
                sheet(axis, drawn[name, steps][:24], 8, f"{name}, {steps} steps")
    return figure


def draw_models(found: Found) -> "Figure":
    """Draw real images, and the first samples of each model."""
    longest = max(steps for _, steps in found.drawn)
    sets = {
        "real": found.real,
        f"DDPM, {longest} steps": found.drawn["small", longest],
        "VAE, means": found.vae["means"],
        "VAE, draws": found.vae["draws"],
    }
    with blank(8.6, 2.5) as figure:
        axes = figure.subplots(1, len(sets))
        for axis, (name, pixels) in zip(axes, sets.items(), strict=True):
            sheet(axis, pixels[:36], 6, name)
    return figure


def draw_cost(figures: Figures) -> "Figure":
    """Draw the Frechet distance of each set of samples by the processor time of one image."""
    with blank(6.4, 3.3) as figure:
        from matplotlib.ticker import LogLocator, NullLocator

        axis = figure.subplots()
        times = list(figures["milliseconds"].values())
        for name, colour in VARIANCE.items():
            drawn = figures["drawn"][name]
            distances = [found["frechet_distance"] for found in drawn.values()]
            axis.loglog(times, distances, "o-", color=colour, label=f"DDPM, {name} variance")
            for steps, *place in zip(drawn, times, distances, strict=True):
                axis.annotate(steps, place, (4, 4), textcoords="offset points", fontsize=8)
        encoded = figures["vae"]
        for name, mark in (("means", "s"), ("draws", "D")):
            distance = encoded[name]["frechet_distance"]
            axis.loglog(
                encoded["milliseconds"], distance, mark, color=COLOURS[2], label=f"VAE, {name}"
            )
        real = figures["real"]["frechet_distance"]
        axis.axhline(real, color=INK, linestyle=":", label="real images")
        axis.set(xlabel="milliseconds an image, one core", ylabel="Frechet distance")
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.yaxis.set_minor_locator(NullLocator())
        for each in (axis.xaxis, axis.yaxis):
            each.set_major_formatter("{x:g}")
        axis.grid(True)
        axis.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def all_pictures(found: Found, size: Size) -> "dict[str, Figure]":
    """Draw every picture of the page, by its name."""
    spec = difftool.load(found.figures["model"]).spec
    return {
        "forward": draw_forward(size.points),
        "posterior": draw_posterior(),
        "gaussian": draw_gaussian(found.line, size.curve),
        "bound": draw_bound(spec, found.errors),
        "weights": draw_weights(spec, found.errors),
        "embedding": draw_embedding(found.levels, found.told),
        "variance": draw_variance(found.drawn),
        "models": draw_models(found),
        "cost": draw_cost(found.figures),
    }


def undecided(level: chain.Level) -> float:
    """Return the x at a level that belongs to both modes with equal probability."""
    low, high = sorted(chain.forward(chain.DATA, level).means)
    for _ in range(60):
        middle = (low + high) / 2
        first = chain.reverse(chain.DATA, middle, level, (1.0, 0.0)).weights[0]
        low, high = (middle, high) if first > 0.5 else (low, middle)
    return float(middle)


def gaussian(x: ArrayLike, mean: float, variance: float) -> Array:
    """Return the density of N(mean, variance) at x."""
    squares = (np.asarray(x) - mean) ** 2
    return np.exp(-squares / (2 * variance)) / np.sqrt(2 * np.pi * variance)


def ramp(place: float) -> tuple[float, float, float, float]:
    """Return the colour at a place of the ramp, in 0 .. 1."""
    from matplotlib import colormaps

    return colormaps[RAMP](place)


def sheet(axis: "Axes", pixels: Pixels, columns: int, title: str) -> None:
    """Draw images uint8 [N, H, W, 1] in rows, dark on white."""
    padded = grid(255 - pixels, columns=columns, padding=2)[..., 0]
    axis.imshow(padded, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    axis.set_title(title, fontsize=9)
    axis.set_axis_off()
