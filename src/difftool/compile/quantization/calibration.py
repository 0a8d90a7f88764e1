"""What the step graph is fed on its way through a program, and the ranges of values inside it.

The activations of a diffusion network shift with the noise level (Li et al. 2023, Q-Diffusion;
Shang et al. 2023, PTQ4DM), so the feeds are spread over all rows of a program.
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

ROWS: Final = 64  # of a program that are looked at, evenly spread
_SAMPLES, _FEEDS = 4, 128  # at least so many samples, and so many samples times rows
_SMALL: Final = 1 << 24  # bytes of a step graph that one thread runs faster than several


@dataclass(frozen=True)
class Calibration:
    """Feeds of the step graph, one for each of `rows` of a program.

    `source` is "self", or the name of the data whose noised samples they are.
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
    """The feeds of the model's own run of a program, in fp32, at `rows` of its rows."""
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
    """Clean samples [N, *S] under the noise of `rows` of a program's rows; the history is empty."""
    shape = bundle.spec.shape
    if data.shape[1:] != shape:
        raise UsageError(
            f"{source} has samples {list(data.shape[1:])}, and the model takes {list(shape)}",
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
    """A feed of at most so many of its samples."""

    def cut(name: str, value: NDArray[Any]) -> NDArray[Any]:
        if name in ("table", "cond_table"):
            return value
        return value[:, :count] if name == "history" else value[:count]

    return {name: cut(name, value) for name, value in feed.items()}


def samples_for(program: Program) -> int:
    """Samples enough for ranges: the more, the fewer rows there are."""
    return max(_SAMPLES, -(-_FEEDS // len(program)))


def threads_for(size: int) -> int | None:
    """Of a session of a step graph of `size` bytes; None is all cores."""
    return 1 if size < _SMALL else None


def reader(feeds: Iterable[Feed]) -> Any:
    """Feeds as ONNX Runtime's calibration reads them."""
    base: Any = onnx_quantization().CalibrationDataReader

    class Reader(base):
        def __init__(self) -> None:
            self._left: Iterator[Feed] = iter(feeds)

        def get_next(self) -> Feed | None:
            return next(self._left, None)

    return Reader()


def ranges_of(model: onnx.ModelProto, feeds: Iterable[Feed], ops: Sequence[str]) -> Ranges:
    """The range of what nodes of these kinds take and give, over all feeds; it includes 0."""
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
    """`count` of `length` rows, evenly spread, the first and the last among them."""
    if count < 1:
        raise UsageError(f"{count} rows", "calibrate with at least 1")
    spread = np.linspace(0, length - 1, min(count, length)).round()
    return tuple(np.unique(spread.astype(int)).tolist())


def _fixed(bundle: Bundle, program: Program, samples: int) -> tuple[Feed, NDArray[np.int64]]:
    """What stays the same in all rows; and each sample's first row. Labels are dealt out."""
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
