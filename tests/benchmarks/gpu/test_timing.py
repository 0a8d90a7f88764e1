"""Times of what is enqueued, and launches by a profiler's events."""

from typing import Any

import pytest
from common.candidates import Runner
from gpu.timing import counted, fake_clock, heat


def runner(log: list[str], name: str, **changes: Any) -> Runner:
    values: dict[str, Any] = {
        "batch": None,
        "begin": lambda: log.append(f"{name} begin"),
        "steps": lambda count: log.append(f"{name} {count}"),
        "wait": lambda: log.append(f"{name} wait"),
        "most": 1000,
    }
    return Runner(**{**values, **changes})


def test_a_heat_times_steps_until_they_are_done_and_the_host_until_they_are_enqueued() -> None:
    """The host's on an empty queue: after a wait, and of one launch."""
    log: list[str] = []
    runners = {"a": runner(log, "a", burst=2), "b": runner(log, "b", burst=0, most=6)}
    timed = heat(runners, rounds=2, seconds=0.004, clock=fake_clock())
    # Every look at the clock takes a ms, so 2 steps do, and 8 steps would fill a round.
    assert timed["a"]["ms"] == pytest.approx([1 / 8] * 2)
    assert timed["a"]["host_us"] == pytest.approx([500.0] * 2)
    assert timed["b"]["ms"] == pytest.approx([1 / 6] * 2)
    assert timed["b"]["host_us"] == []
    round_a = ["a begin", "a wait", "a 8", "a wait", "a begin", "a wait", "a 2", "a wait"]
    round_b = ["b begin", "b wait", "b 6", "b wait"]
    assert log[-24:] == [*round_a, *round_b, *round_b, *round_a]


def test_launches_are_the_hosts_and_kernels_the_gpus() -> None:
    host = ["cudaLaunchKernel", "cuLaunchKernelEx", "cudaGraphLaunch", "aten::add", "cudaMalloc"]
    device = ["gemm", "add", "add", "Memcpy DtoD", "Memset"]
    events = [*((name, False) for name in host), *((name, True) for name in device)]
    assert counted(events, 1, "off") == (3, 3)
    # Four rows are two graphs of this runtime, whether the profiler saw them or not.
    assert counted([], 4, "pairs") == (0.5, 0)
    assert counted(events, 4, "pairs") == (1.0, 0.75)
    assert counted([], 4, "loop") == (0.25, 0)
