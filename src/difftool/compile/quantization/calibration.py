"""Collect inputs of the step graph over a program, and the ranges of values inside the graph.

The activations of a diffusion network shift with the noise level (Li et al. 2023, Q-Diffusion;
Shang et al. 2023, PTQ4DM), so the inputs are spread over all rows of a program.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray

from difftool.alone import onnx_quantization
from difftool.bundle import STEP, Bundle
from difftool.compile.quantization.graph import LAYERS, Ranges
from difftool.diffusion.labels import Labels, lay_out_rows
from difftool.diffusion.program import Program
from difftool.errors import UsageError
from difftool.files import temporary_folder
from difftool.runtime.backends.conditioner import Conditioner
from difftool.runtime.backends.sessions import cpu_session
from difftool.runtime.draws import Draws, row_noise, start_noise

Floats = NDArray[np.float32]
Feed = dict[str, NDArray[Any]]
OnStep = Callable[[], None]

ROWS: Final = 64  # the most rows of a program that are used, evenly spread
_SAMPLES, _FEEDS = 4, 128  # the fewest samples, and the fewest samples times rows
_SMALL: Final = 1 << 24  # one thread runs step graphs of fewer bytes faster than several threads


@dataclass(frozen=True)
class Calibration:
    """Feeds (inputs by name) of the step graph, one for each of `rows` of a program."""

    program: Program
    samples: int
    rows: tuple[int, ...]
    feeds: Sequence[Feed]


def from_trajectory(
    bundle: Bundle,
    program: Program,
    *,
    samples: int | None = None,
    rows: int = ROWS,
    seed: int = 0,
    on_step: OnStep = lambda: None,
) -> Calibration:
    """Return the feeds of the model's own run of a program, in fp32, at `rows` of its rows."""
    samples = samples_for(program) if samples is None else samples
    wanted = _spread(len(program), rows)
    session, feed = _start(bundle, program, samples)
    draws = Draws(seed, np.arange(samples), bundle.spec.shape)
    feed["x"] = start_noise(program, draws)
    feeds = []
    for row, noise in enumerate(row_noise(program, draws)):
        feed["noise"] = np.zeros_like(feed["x"]) if noise is None else noise
        taken = _taken(session, feed)
        if row in wanted:
            feeds.append(taken)
        feed |= zip(("x", "history", "row"), session.run(None, taken), strict=False)
        on_step()
    return Calibration(program, samples, wanted, feeds)


def from_data(
    bundle: Bundle,
    program: Program,
    data: Floats,
    source: str,
    *,
    rows: int = ROWS,
    seed: int = 0,
) -> Calibration:
    """Return feeds of clean samples [N, *S] with the noise of `rows` of the rows; history is 0."""
    shape = bundle.spec.shape
    if data.shape[1:] != shape:
        raise UsageError(
            f"{source} has samples {list(data.shape[1:])}, but the model takes {list(shape)}",
            "give data of the model's size",
        )
    samples = len(data)
    wanted = _spread(len(program), rows)
    session, feed = _start(bundle, program, samples)
    draws = Draws(seed, np.arange(samples), shape)
    feeds = []
    for row, noise in zip(wanted, draws.normal(np.array(wanted) + 1), strict=True):
        alpha, sigma = program.targets[row].astype(np.float32)
        own: Feed = {"x": alpha * data + sigma * noise, "row": feed["row"] + row}
        feeds.append(_taken(session, feed | own))
    return Calibration(program, samples, wanted, feeds)


def first_samples(feed: Feed, count: int) -> Feed:
    """Return a feed with at most `count` of its samples."""

    def cut(name: str, value: NDArray[Any]) -> NDArray[Any]:
        if name in ("table", "cond_table"):
            return value
        return value[:, :count] if name == "history" else value[:count]

    return {name: cut(name, value) for name, value in feed.items()}


def samples_for(program: Program) -> int:
    """Return the number of samples to find ranges with; fewer rows take more samples."""
    return max(_SAMPLES, -(-_FEEDS // len(program)))


def threads_for(size: int) -> int | None:
    """Return the threads to run a step graph of `size` bytes with; None is all cores."""
    return 1 if size < _SMALL else None


class Reader:
    """Feeds in the form that ONNX Runtime's calibration reads."""

    def __init__(self, feeds: Iterable[Feed]) -> None:
        self._left = iter(feeds)

    def get_next(self) -> Feed | None:
        """Return the next feed, or None after the last."""
        return next(self._left, None)


def _without_defaults(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a graph whose inputs with a default are constants; else ONNX Runtime warns of them."""
    constants = {tensor.name for tensor in model.graph.initializer}
    result = onnx.ModelProto()
    result.CopyFrom(model)
    del result.graph.input[:]
    result.graph.input.extend(each for each in model.graph.input if each.name not in constants)
    return result


def find_ranges(model: onnx.ModelProto, feeds: Iterable[Feed]) -> Ranges:
    """Return the ranges, with 0, of all values that may be quantized, over all feeds."""
    quantization = onnx_quantization()
    with temporary_folder() as folder:
        path = folder / "step.onnx"
        onnx.save(_without_defaults(model), path)
        calibrator = quantization.create_calibrator(
            path,
            sorted({*LAYERS, "Concat"}),
            augmented_model_path=str(folder / "augmented.onnx"),
            calibrate_method=quantization.CalibrationMethod.MinMax,
        )
        calibrator.collect_data(Reader(feeds))
        found = calibrator.compute_data()
    pairs = {name: data.range_value for name, data in found.items()}
    return {
        name: (min(0.0, float(np.min(low))), max(0.0, float(np.max(high))))
        for name, (low, high) in pairs.items()
    }


def step_session(data: bytes, name: object) -> Any:
    """Open a session for a step graph that errors call `name`."""
    return cpu_session(data, name, threads_for(len(data)))


def _spread(length: int, count: int) -> tuple[int, ...]:
    """Return `count` of `length` rows, evenly spread, with the first and the last."""
    spread = np.linspace(0, length - 1, min(count, length)).round()
    return tuple(np.unique(spread.astype(int)).tolist())


def _start(bundle: Bundle, program: Program, samples: int) -> tuple[Any, Feed]:
    """Return a session, and inputs at the first row of a program; x, history and noise are 0.

    The samples take the labels in turn.
    """
    spec, step = bundle.spec, bundle.graph(STEP)
    of = np.arange(samples) % (spec.classes + spec.null_label) if spec.classes else None
    rows = lay_out_rows(program, spec, samples, None if of is None else Labels(of))
    nothing = np.zeros((samples, *spec.shape), np.float32)
    feed: Feed = {
        **dict.fromkeys(("x", "noise", "known", "mask"), nothing),
        "history": np.zeros((program.history, samples, *spec.shape), np.float32),
        "row": rows.first,
        "table": rows.table.astype(np.float32),
        "cond_table": Conditioner(bundle).table(rows),
    }
    return step_session(step.data, step.path), feed


def _taken(session: Any, feed: Feed) -> Feed:
    return {node.name: feed[node.name] for node in session.get_inputs()}
