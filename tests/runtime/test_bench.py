"""Timing backends in turns, finding the best batch, and the memory of a process."""

import itertools
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from difftool.bundle import read_bundle
from difftool.diffusion.features import Feature
from difftool.diffusion.labels import Labels
from difftool.diffusion.program import Program
from difftool.errors import CheckFailed, UsageError
from difftool.runtime import bench
from difftool.runtime.bench import Timing, best_size, measure, peak_memory, ratios


class Host:
    """A backend that notes who starts a round, and computes nothing."""

    name = "fake"
    features: frozenset[Feature] = frozenset()

    def __init__(self, label: str, starts: list[str]) -> None:
        self.label, self.starts, self.steps = label, starts, 0
        self.history = self.denoised = self.x = np.zeros((1, 2), np.float32)

    def batch(self, program: Program, size: int, labels: Labels | None = None) -> "Host":
        return self

    def start(self, x: object, **past: object) -> None:
        self.starts.append(self.label)

    def step(self, noise: object) -> None:
        self.steps += 1


class Device(Host):
    """One that draws its noise itself, and runs rows without a stop."""

    def begin(self, scale: float, draws: object, *, known: object = None) -> None:
        self.starts.append(self.label)

    def advance(self, rows: int, draws: object) -> None:
        self.steps += rows


@pytest.fixture
def steady(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that goes on by a microsecond whenever it is looked at."""
    looks = itertools.count()
    clock = SimpleNamespace(perf_counter=lambda: 1e-6 * next(looks))
    monkeypatch.setattr(bench, "time", clock)


def _timing(size: int, *round_ms: float) -> Timing:
    return Timing(size, 0.0, np.array(round_ms)[:, None])


@pytest.mark.usefixtures("steady")
def test_backends_take_turns_in_alternating_order(points_bundle: Path) -> None:
    bundle = read_bundle(points_bundle)
    starts: list[str] = []
    sides = {"a": Host("a", starts), "b": Host("b", starts)}
    found = measure(sides, bundle.default_program(), bundle.spec, size=1, rounds=2)
    # first steps, then how long a round must be, then the round that is not counted and two more
    assert "".join(starts) == "ab" + "ab" + "ab" + "ba" + "ab"
    rows = min(bench.MOST_ROWS, len(bundle.default_program()))
    assert found.keys() == {"a", "b"}
    for timing in found.values():
        assert timing.ms.shape == (2, rows)
        assert timing.ms == pytest.approx(1e-3 * (1 + 1 / rows))  # a look for each step and for all
        assert timing.first_ms > 0


def test_a_backend_that_does_not_stop_gives_the_mean_of_a_round(points_bundle: Path) -> None:
    bundle = read_bundle(points_bundle)
    sides = {"gpu": Device("gpu", [])}
    found = measure(sides, bundle.default_program(), bundle.spec, size=1, rounds=3)
    assert found["gpu"].ms.shape == (3, 1)


def test_a_timing_in_figures() -> None:
    steps = np.arange(1.0, 101.0)
    timing = Timing(4, 9.0, steps.reshape(2, 50))
    assert timing.quantiles() == {
        name: pytest.approx(np.quantile(steps, q))
        for name, q in {"median": 0.5, "q1": 0.25, "q3": 0.75, "p90": 0.9, "p99": 0.99}.items()
    }
    assert timing.quantiles(0.5)["median"] == pytest.approx(25.25)
    # the mean steps of the rounds are 25.5 and 75.5 ms; four samples take 10 of them
    assert timing.images_per_second(10) == pytest.approx(4 / (10 * 50.5e-3))
    assert ratios(_timing(1, 2.0, 30.0), _timing(1, 1.0, 10.0)).tolist() == [2, 3]


def test_the_best_batch_is_the_smallest_of_those_that_are_nearly_as_fast() -> None:
    assert best_size([_timing(1, 1.0), _timing(2, 1.5), _timing(4, 2.95)]) == 2
    assert best_size([_timing(1, 1.0), _timing(2, 1.5), _timing(4, 2.0)]) == 4


def test_nothing_is_no_batch(points_bundle: Path) -> None:
    bundle = read_bundle(points_bundle)
    for size, rounds in ((0, 1), (1, 0), (1, 10**30)):
        with pytest.raises(UsageError, match=f"a batch of {size}, {rounds} rounds.*1 to 10000"):
            measure({}, bundle.default_program(), bundle.spec, size=size, rounds=rounds)


def test_the_memory_of_a_process_of_its_own(points_bundle: Path, tmp_path: Path) -> None:
    def peak(model: Path) -> float | None:
        return peak_memory(str(model), backend=None, precision="fp32", threads=1, size=1)

    found = peak(points_bundle)
    assert found is None or 20 < found < 400
    with pytest.raises(CheckFailed, match="no bundle at"):
        peak(tmp_path / "none")
