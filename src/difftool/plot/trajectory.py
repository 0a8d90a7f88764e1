"""Draw samples on their way: paths of points in the plane, or a strip of images."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from difftool.diffusion.program import Program
from difftool.errors import UsageError
from difftool.plot.plane import fit_window, paths, show
from difftool.plot.style import blank, styled, titled
from difftool.runtime.draws import Draws, start_noise
from difftool.runtime.images import grid, is_image, to_uint8
from difftool.runtime.model import Model

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Floats = NDArray[np.float32]
Pixels = NDArray[np.uint8]

_COLUMNS = 10  # in a strip
_GAP = 2  # pixels between images
_WIDTH = 8.0  # inches


def draw_trajectory(
    model: Model, program: Program | None = None, *, n: int = 8, seed: int = 0
) -> "Figure":
    """Draw samples 0 .. n - 1 of a seed on their way through a program, by default the model's own.

    Points in the plane get paths, from a hollow start to a filled end. Images get a row for each
    sample, with the denoised estimate after ten rows of the program and the sample at the end.

    Raises:
        UsageError: samples are neither points in the plane nor images, or n is too small.
        MissingDependencyError: matplotlib is not installed.
    """
    program = model.default_program() if program is None else program
    plane = model.spec.shape == (2,)
    if not plane and not is_image(model.spec):
        raise UsageError(
            f"samples of shape {model.spec.shape} are neither images nor points in the plane",
            "difftool sample --out samples.npz writes their numbers",
        )
    with styled():  # so that a missing matplotlib is found before any sample is drawn
        if plane:
            return draw_paths(trace_paths(model, program, n=n, seed=seed), program.name)
        steps, frames = trace_frames(model, program, n=n, seed=seed)
        return draw_strip(frames, strip_labels(program, steps))


def trace_paths(model: Model, program: Program, *, n: int, seed: int) -> Floats:
    """Return every state of points in the plane, float32 [R + 1, n, 2], the start first."""
    states: Floats = np.empty((len(program) + 1, n, 2), np.float32)
    for state in model.stream(program, n=n, seed=seed):
        states[state.step, state.first : state.first + len(state.x)] = state.x
    states[0] = start_noise(program, Draws(seed, np.arange(n), (2,)))
    return states


def trace_frames(model: Model, program: Program, *, n: int, seed: int) -> tuple[list[int], Pixels]:
    """Return the chosen steps, and images uint8 [T + 1, n, H, W, C].

    The images are `denoised` after each of T steps, and the final x. There are at most ten steps,
    evenly spaced, with the first and the last.
    """
    count = min(_COLUMNS, len(program))
    steps: list[int] = np.linspace(1, len(program), count).round().astype(int).tolist()
    parts: list[list[Pixels]] = [[] for _ in range(count + 1)]
    for state in model.stream(program, n=n, seed=seed):
        if state.step in steps:
            parts[steps.index(state.step)].append(to_uint8(state.denoised, model.spec))
        if state.step == state.steps:
            parts[-1].append(to_uint8(state.x, model.spec))
    return steps, np.stack([np.concatenate(part) for part in parts])


def strip_labels(program: Program, steps: list[int]) -> list[str]:
    """Return the titles of a strip's columns: the row, and the noise of the x that it denoises."""
    sigmas = program.targets[np.array(steps) - 1, 1]
    named = [f"row {step}\n{sigma:.3f}" for step, sigma in zip(steps, sigmas, strict=True)]
    named[0] = named[0].replace("\n", "\nsigma ")
    return [*named, "sample\n"]


def draw_paths(states: Floats, title: str) -> "Figure":
    """Draw paths of states [T, N, 2], coloured by time."""
    window = fit_window(states.reshape(-1, 2))
    with blank(6.2, 5.6) as figure:
        axis = figure.subplots()
        shown = paths(axis, states)
        show(axis, window, "")
        figure.suptitle(titled(title), fontsize=9)
        figure.colorbar(shown, ax=axis, label="row", fraction=0.046)
        return figure


def draw_strip(frames: Pixels, labels: list[str]) -> "Figure":
    """Draw images uint8 [T, N, H, W, C], with a column for each of T under its label."""
    columns, _, height, width, channels = frames.shape
    images = frames.swapaxes(0, 1).reshape(-1, height, width, channels)
    sheet = grid(images, columns=columns, padding=_GAP)[_GAP:-_GAP, _GAP:-_GAP]
    with blank(_WIDTH, _WIDTH * sheet.shape[0] / sheet.shape[1] + 0.45) as figure:
        axis = figure.subplots()
        look: dict[str, Any] = {"interpolation": "nearest"}
        if channels == 1:
            sheet, look = sheet[..., 0], {**look, "cmap": "gray", "vmin": 0, "vmax": 255}
        axis.imshow(sheet, **look)
        centres = np.arange(columns) * (width + _GAP) + (width - 1) / 2
        axis.set_xticks(centres, labels, fontsize=8)
        axis.tick_params(top=True, labeltop=True, bottom=False, labelbottom=False, length=0)
        axis.set_yticks([])
        axis.spines[:].set_visible(False)
        return figure
