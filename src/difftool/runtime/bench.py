"""Measure how long a step takes on backends that take turns, and how much memory a run needs."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from difftool.diffusion.program import Program
from difftool.diffusion.spec import ModelSpec
from difftool.errors import CheckFailed, UsageError
from difftool.runtime.draws import Draws, row_noise, start_noise
from difftool.runtime.protocols import Backend, Batch, DrawsNoise
from difftool.runtime.request import Request

ROUND_SECONDS: Final = 0.25  # a round is short, so that a slow spell of the machine hits all
MOST_ROWS: Final = 100  # in a round
MOST_ROUNDS: Final = 10_000
AS_FAST: Final = 0.97  # a smaller batch that reaches this share of the best throughput is better

_MIB: Final = 1 << 20
_CHILD: Final = "from difftool.runtime.bench import peak_main; peak_main()"


@dataclass(frozen=True)
class Timing:
    """The time of one batch's steps on one backend, round by round.

    - `first_ms`: of making the batch and its first step, which compile graphs and take memory
    - `ms`: float64 [rounds, rows], of each step with its share of the noise; one mean a round if
      the backend runs rows without a stop
    """

    size: int
    first_ms: float
    ms: NDArray[np.float64]

    @property
    def round_ms(self) -> NDArray[np.float64]:
        """Return the mean milliseconds of a step in each round, [rounds]."""
        return np.asarray(self.ms.mean(axis=1))

    def quantiles(self, factor: float = 1.0) -> dict[str, float]:
        """Return median, quartiles, p90 and p99 of milliseconds times `factor`, over all steps."""
        levels = {"median": 50, "q1": 25, "q3": 75, "p90": 90, "p99": 99}
        found = np.percentile(self.ms * factor, list(levels.values()))
        return dict(zip(levels, found.tolist(), strict=True))

    def images_per_second(self, nfe: int) -> float:
        """Return samples per second in runs of `nfe` steps, from the median round."""
        return 1e3 * self.size / (float(np.median(self.round_ms)) * nfe)


def measure(
    sides: Mapping[str, Backend], program: Program, spec: ModelSpec, *, size: int, rounds: int
) -> dict[str, Timing]:
    """Time steps of a batch of `size` on every backend; the backends take turns, round by round.

    Every other round has the opposite order, and a first round is not counted. Noise is drawn as
    `Model.sample` draws it.
    """
    if size < 1 or not 1 <= rounds <= MOST_ROUNDS:
        hint = f"measure a batch of at least 1, and 1 to {MOST_ROUNDS} rounds"
        raise UsageError(f"a batch of {size}, {rounds} rounds", hint)
    draws = Draws(0, np.arange(size), spec.shape)
    labels = Request(n=size).labels_at(np.arange(size), spec)
    x = start_noise(program, draws)
    batches: dict[str, Batch] = {}
    first: dict[str, float] = {}
    for name, backend in sides.items():
        begin = time.perf_counter()
        batches[name] = backend.batch(program, size, labels)
        _round(batches[name], program, x, draws, 1)
        first[name] = 1e3 * (time.perf_counter() - begin)
    rows = {name: _rows(batch, program, x, draws) for name, batch in batches.items()}
    found: dict[str, list[NDArray[np.float64]]] = {name: [] for name in sides}
    order = list(sides)
    for counted in [False] + [True] * rounds:
        for name in order:
            ms = _round(batches[name], program, x, draws, rows[name])
            if counted:
                found[name].append(ms)
        order.reverse()
    return {name: Timing(size, first[name], np.stack(found[name])) for name in sides}


def ratios(timing: Timing, base: Timing) -> NDArray[np.float64]:
    """Return how many times as long a step takes as with `base`, round by round [rounds]."""
    return timing.round_ms / base.round_ms


def best_size(timings: Sequence[Timing]) -> int:
    """Return the smallest batch that reaches the best throughput, or nearly."""
    speeds = {timing.size: timing.images_per_second(1) for timing in timings}
    most = max(speeds.values())
    return min(size for size, speed in speeds.items() if speed >= AS_FAST * most)


def peak_memory(
    model: str,
    *,
    backend: str | None,
    precision: str,
    threads: int | None,
    size: int,
    device: int = 0,
    trust: Collection[str] = (),
) -> float | None:
    """Return the most MiB of a new process that loads a model, as `load` does, and takes two steps.

    None if the operating system does not say. CheckFailed if the process ends badly.
    """
    options = {"backend": backend, "precision": precision, "threads": threads, "device": device}
    request = {"model": model, **options, "trust": list(trust), "max_batch": size}
    done = subprocess.run(
        [sys.executable, "-c", _CHILD], input=json.dumps(request), capture_output=True, text=True
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it says nothing"])[-1]
        raise CheckFailed(f"the process that memory is measured in failed: {last}")
    peak: float | None = json.loads(done.stdout)
    return peak


def peak_main() -> None:
    """Run in that process: `load`'s arguments come as JSON on stdin, MiB go to stdout."""
    from difftool.runtime.model import load

    model = load(**json.load(sys.stdin))
    for state in islice(model.stream(n=model.max_batch), 2):
        state.x  # noqa: B018  (the state is computed when it is looked at)
    print(json.dumps(_peak()), flush=True)
    # All is said, and threads of a compiled package may abort while the interpreter is taken down.
    os._exit(0)


def _rows(batch: Batch, program: Program, x: Any, draws: Draws) -> int:
    """Return how many rows fill a round."""
    ms = float(_round(batch, program, x, draws, min(2, len(program))).min())
    return int(np.clip(1e3 * ROUND_SECONDS / max(ms, 1e-3), 1, min(MOST_ROWS, len(program))))


def _round(batch: Batch, program: Program, x: Any, draws: Draws, rows: int) -> NDArray[np.float64]:
    """Time the first rows of a program: milliseconds [rows], or their mean [1]."""
    batch.start(x)
    if isinstance(batch, DrawsNoise):
        begin = time.perf_counter()
        batch.advance(rows, draws)
        batch.x  # noqa: B018  (waits for the device)
        return np.array([1e3 * (time.perf_counter() - begin) / rows])
    begin = time.perf_counter()
    noises = list(islice(row_noise(program, draws), rows))
    share = (time.perf_counter() - begin) / rows
    seconds = np.empty(rows)
    for row, noise in enumerate(noises):
        begin = time.perf_counter()
        batch.step(noise)
        batch.x  # noqa: B018  (waits for a device)
        seconds[row] = time.perf_counter() - begin + share
    return 1e3 * seconds


def _peak() -> float | None:
    """Return the most MiB of this process. On Linux rusage would count the parent's memory, too."""
    try:
        with open("/proc/self/status", encoding="ascii") as file:
            lines = dict(line.split(":", 1) for line in file)
        return int(lines["VmHWM"].split()[0]) * 1024 / _MIB
    except (OSError, KeyError):
        pass
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / _MIB
