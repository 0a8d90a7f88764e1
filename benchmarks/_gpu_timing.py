"""Times on a GPU: steps that are enqueued and waited for, what the host spends on them, launches.

A side takes turns with the others; see `heat`. The clock is a parameter, so that a dry run needs no
time.
"""

import contextlib
import signal
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from difftool.runtime.protocols import Batch

Clock = Callable[[], float]  # seconds

MOST_STEPS = 200  # of a round
BURST = 20  # steps that the host's time is taken of, where launches are few
MATMUL = 8192  # of the square matrices whose product is the measure


def _nothing() -> None:
    pass


@dataclass(frozen=True)
class Runner:
    """A side that is open, at one batch.

    - `batch`: what single rows are compared through
    - `begin`: to the first row; `steps(n)` enqueues the next n, `wait` waits until they are done
    - `enter`: called before this side is used after another one, since torch's TF32 is global
    - `least`, `most`: steps of a round; `most` are the rows of the program
    - `burst`: how many steps can be enqueued before the GPU's queue is full; 0 where `steps` waits
    - `graphs`: "pairs" or "loop" where this runtime launches a graph of two rows, or of all
    - `free`: whether a whole run can be compared, since its noise is this runtime's
    """

    batch: Batch
    begin: Callable[[], None]
    steps: Callable[[int], None]
    wait: Callable[[], None]
    most: int
    least: int = 2
    enter: Callable[[], None] = _nothing
    burst: int = 2
    graphs: Callable[[], str] = field(default=lambda: "off")
    free: bool = False


@dataclass(frozen=True)
class Times:
    """Of each round: milliseconds of a step, and microseconds that the host spends on one."""

    ms: list[float]
    host_us: list[float]


class FakeClock:
    """A clock that goes on by a millisecond whenever it is looked at."""

    def __init__(self) -> None:
        self._now = 0.0

    def __call__(self) -> float:
        self._now += 1e-3
        return self._now


def heat(
    runners: Mapping[str, Runner],
    *,
    rounds: int,
    seconds: float,
    clock: Clock = time.perf_counter,
    on_side: Callable[[str], None] = lambda name: None,
) -> dict[str, Times]:
    """Time all sides by turns; a round of each lasts about so many seconds.

    One round goes before, in which `on_side` is told who runs, and is not counted. Every other
    round has the opposite order.
    """
    counts: dict[str, int] = {}
    for name, runner in runners.items():
        on_side(name)
        _round(runner, 2, clock)  # what a first run compiles is not steady state
        took, _ = _round(runner, 2, clock)
        fitting = min(seconds / max(took, 1e-9), MOST_STEPS, runner.most)
        counts[name] = max(min(runner.least, runner.most), 2 * int(fitting / 2))
        _round(runner, counts[name], clock)
    found = {name: Times([], []) for name in runners}
    order = list(runners)
    for _ in range(rounds):
        for name in order:
            took, host = _round(runners[name], counts[name], clock)
            found[name].ms.append(1e3 * took)
            if host is not None:
                found[name].host_us.append(1e6 * host)
        order.reverse()
    return found


def _round(runner: Runner, count: int, clock: Clock) -> tuple[float, float | None]:
    """Seconds of a step, and of the host's part in one, which a few steps of their own show."""
    runner.enter()
    runner.begin()
    runner.wait()
    begin = clock()
    runner.steps(count)
    runner.wait()
    took = (clock() - begin) / count
    if not runner.burst:
        return took, None
    runner.begin()
    runner.wait()
    burst = min(runner.burst, runner.most)
    begin = clock()
    runner.steps(burst)
    host = (clock() - begin) / burst
    runner.wait()
    return took, host


def launches(runner: Runner, device: str) -> tuple[float, float]:
    """How often the host launches for a step, and how many kernels the GPU runs for one.

    By torch's profiler, which sees other libraries, too. It may stay attached and slow the process
    down, so this is the last thing to do in one.
    """
    from torch.profiler import ProfilerActivity, profile

    activities = [ProfilerActivity.CPU, ProfilerActivity.CUDA]
    count = min(runner.burst or 2, runner.most)
    runner.enter()
    runner.begin()
    runner.wait()
    with profile(activities=activities[: 1 if device == "cpu" else 2]) as profiler:
        runner.steps(count)
        runner.wait()
    events = [(str(event.name), event.device_type.name == "CUDA") for event in profiler.events()]
    return counted(events, count, runner.graphs())


def counted(events: list[tuple[str, bool]], count: int, graphs: str) -> tuple[float, float]:
    """Launches and kernels of a step, from names of events and whether they are the GPU's own.

    The profiler may not see the launches of graphs through the driver. How many this runtime makes
    is known.
    """
    host = [name for name, on_gpu in events if not on_gpu]
    kernels = sum(on_gpu and not name.startswith(("Memcpy", "Memset")) for name, on_gpu in events)
    single = sum("LaunchKernel" in name or "LaunchCooperativeKernel" in name for name in host)
    whole = sum("GraphLaunch" in name for name in host)
    known = {"pairs": -(-count // 2), "loop": 1}.get(graphs, 0)
    return (single + max(whole, known)) / count, kernels / count


def matmul_rate(device: str, clock: Clock, size: int = MATMUL, rounds: int = 10) -> float:
    """FLOP/s of a bf16 product of random square matrices: the median."""
    import torch

    a, b = (torch.randn(size, size, device=device).to(torch.bfloat16) for _ in range(2))
    times = []
    for index in range(rounds + 3):
        begin = clock()
        a @ b
        synchronize(device)
        if index >= 3:
            times.append(clock() - begin)
    return float(2 * size**3 / statistics.median(times))


def synchronize(device: str) -> None:
    """Wait for torch's work on a device."""
    if device != "cpu":
        import torch

        torch.cuda.synchronize()


def free_bytes(device: str, *, tidy: bool = False) -> int:
    """Memory of the GPU that nobody has; 0 where there is no GPU.

    Allocators keep what they once had, so what is missing after a run is its peak. `tidy` has
    torch give back what it keeps.
    """
    if device == "cpu":
        return 0
    import torch

    if tidy:
        torch.cuda.empty_cache()
    free: int = torch.cuda.mem_get_info()[0]
    return free


@contextlib.contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """TimeoutError after so many seconds; in the main thread alone, and not on Windows."""
    if not hasattr(signal, "SIGALRM") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def late(*_: Any) -> None:
        raise TimeoutError(f"not ready within {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-3))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
