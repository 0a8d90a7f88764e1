"""Collect inputs of the step graph over a program, and the ranges of values inside the graph.

The activations of a diffusion network shift with the noise level (Li et al. 2023, Q-Diffusion;
Shang et al. 2023, PTQ4DM), so the inputs are spread over all rows of a program.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray

from difftool.alone import onnx_quantization
from difftool.bundle import STEP, Bundle
from difftool.diffusion.labels import Labels, lay_out_rows
from difftool.diffusion.program import Program
from difftool.errors import UsageError
from difftool.files import temporary_folder
from difftool.runtime.backends.conditioner import Conditioner
from difftool.runtime.backends.sessions import cpu_session
from difftool.runtime.draws import Draws, row_noise, start_noise

Floats = NDArray[np.float32]
Feed = dict[str, NDArray[Any]]
Ranges = dict[str, tuple[float, float]]  # value -> its smallest and largest element
OnStep = Callable[[], None]

ROWS: Final = 64  # the most rows of a program that are used, evenly spread
_SAMPLES, _FEEDS = 4, 128  # the fewest samples, and the fewest samples times rows
_SMALL: Final = 1 << 24  # one thread runs step graphs of fewer bytes faster than several threads


@dataclass(frozen=True)
class Calibration:
    """Feeds (inputs by name) of the step graph, one for each of `rows` of a program.

    `source` is "self", or the name of the data that noise was added to.
    """

    source: str
    program: Program
    seed: int
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
    session = _session(bundle)
    draws = Draws(seed, np.arange(samples), bundle.spec.shape)
    fixed, first = _fixed(bundle, program, samples)
    state: Feed = {
        "x": start_noise(program, draws),
        "history": np.zeros((program.history, samples, *bundle.spec.shape), np.float32),
        "row": first,
    }
    feeds = []
    for row, noise in enumerate(row_noise(program, draws)):
        feed = _taken(session, {**fixed, **state, **_noise(noise, state["x"])})
        if row in wanted:
            feeds.append(feed)
        state = dict(zip(state, session.run(None, feed), strict=False))
        on_step()
    return Calibration("self", program, seed, samples, wanted, feeds)


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
    wanted = _spread(len(program), rows)
    session = _session(bundle)
    samples = len(data)
    draws = Draws(seed, np.arange(samples), shape)
    fixed, first = _fixed(bundle, program, samples)
    history = np.zeros((program.history, samples, *shape), np.float32)
    feeds = []
    for row, noise in zip(wanted, draws.normal(np.array(wanted) + 1), strict=True):
        alpha, sigma = program.targets[row].astype(np.float32)
        state = {"x": alpha * data + sigma * noise, "history": history, "row": first + row}
        feeds.append(_taken(session, {**fixed, **state, "noise": np.zeros_like(noise)}))
    return Calibration(source, program, seed, samples, wanted, feeds)


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


def reader(feeds: Iterable[Feed]) -> Any:
    """Return feeds in the form that ONNX Runtime's calibration reads."""
    base: Any = onnx_quantization().CalibrationDataReader

    class Reader(base):
        def __init__(self) -> None:
            self._left: Iterator[Feed] = iter(feeds)

        def get_next(self) -> Feed | None:
            return next(self._left, None)

    return Reader()


def find_ranges(model: onnx.ModelProto, feeds: Iterable[Feed], ops: Sequence[str]) -> Ranges:
    """Return the ranges, with 0, of inputs and outputs of nodes of these kinds, over all feeds."""
    quantization = onnx_quantization()
    with temporary_folder() as folder:
        path = folder / "step.onnx"
        onnx.save(model, path)
        calibrator = quantization.create_calibrator(
            path,
            list(ops),
            augmented_model_path=str(folder / "augmented.onnx"),
            calibrate_method=quantization.CalibrationMethod.MinMax,
        )
        calibrator.collect_data(reader(feeds))
        found = calibrator.compute_data()
    return {
        name: (min(0.0, float(np.min(low))), max(0.0, float(np.max(high))))
        for name, (low, high) in ((name, data.range_value) for name, data in found.items())
    }


def _session(bundle: Bundle) -> Any:
    step = bundle.graph(STEP)
    return cpu_session(step.data, step.path, threads_for(len(step.data)))


def _spread(length: int, count: int) -> tuple[int, ...]:
    """Return `count` of `length` rows, evenly spread, with the first and the last."""
    if count < 1:
        raise UsageError(f"{count} rows are too few", "calibrate with at least 1")
    spread = np.linspace(0, length - 1, min(count, length)).round()
    return tuple(np.unique(spread.astype(int)).tolist())


def _fixed(bundle: Bundle, program: Program, samples: int) -> tuple[Feed, NDArray[np.int64]]:
    """Return the inputs that stay the same in all rows, and each sample's first row.

    The samples take the labels in turn.
    """
    spec = bundle.spec
    of = np.arange(samples) % (spec.classes + spec.null_label) if spec.classes else None
    rows = lay_out_rows(program, spec, samples, None if of is None else Labels(of))
    nothing = np.zeros((samples, *spec.shape), np.float32)
    fixed = {
        "table": rows.table.astype(np.float32),
        "cond_table": Conditioner(bundle).table(rows),
        "known": nothing,
        "mask": nothing,
    }
    return fixed, rows.first


def _noise(noise: Floats | None, like: Floats) -> Feed:
    return {"noise": np.zeros_like(like) if noise is None else noise}


def _taken(session: Any, feed: Feed) -> Feed:
    return {node.name: feed[node.name] for node in session.get_inputs()}
