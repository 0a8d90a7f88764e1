"""Times on a GPU: steps that are enqueued and waited for, what the host spends on them, launches.

The clock is a parameter, so that a dry run needs no time.
"""

import itertools
import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial

from common.candidates import Runner
from common.timing import Clock, take_turns

MOST_STEPS = 200  # of a round
MATMUL = 8192  # of the square matrices whose product is the measure


def fake_clock() -> Clock:
    """Make a clock that goes on by a millisecond whenever it is looked at."""
    ticks = itertools.count(0.0, 1e-3)
    return lambda: next(ticks)


def heat(
    runners: Mapping[str, Runner],
    *,
    rounds: int,
    seconds: float,
    clock: Clock = time.perf_counter,
    on_candidate: Callable[[str], None] = lambda name: None,
) -> dict[str, dict[str, list[float]]]:
    """Time all candidates by turns; a round of each lasts about so many seconds.

    Gives of each round "ms", the milliseconds of a step, and "host_us", the microseconds that the
    host spends on one. A first round is not counted; `on_candidate` gets the name of each as it
    begins.
    """
    turns: dict[str, Callable[[], tuple[float, float | None]]] = {}
    for name, runner in runners.items():
        on_candidate(name)
        _round(runner, 2, clock)  # what a first run compiles is not steady state
        took, _ = _round(runner, 2, clock)
        fitting = min(seconds / max(took, 1e-9), MOST_STEPS, runner.most)
        count = max(min(runner.least, runner.most), 2 * int(fitting / 2))
        turns[name] = partial(_round, runner, count, clock)
        turns[name]()
    return {
        name: {
            "ms": [1e3 * took for took, _ in found],
            "host_us": [1e6 * host for _, host in found if host is not None],
        }
        for name, found in take_turns(turns, rounds=rounds).items()
    }


def _round(runner: Runner, count: int, clock: Clock) -> tuple[float, float | None]:
    """Measure seconds of a step, and of the host's part in one launch on an empty queue.

    More launches than that would measure how the host waits for a place in the queue.
    """

    def seconds(count: int, *, done: bool) -> float:
        runner.start()
        runner.wait()
        begin = clock()
        runner.steps(count)
        if done:
            runner.wait()
        took = (clock() - begin) / count
        if not done:
            runner.wait()
        return took

    burst = min(runner.burst, runner.most)
    return seconds(count, done=True), seconds(burst, done=False) if burst else None


def launches(runner: Runner, device: str) -> tuple[float, float]:
    """Count how often the host launches for a step, and how many kernels the GPU runs for one.

    By torch's profiler, which sees other libraries, too. It may stay attached and slow the process
    down, so this is the last thing to do in one.
    """
    from torch.profiler import ProfilerActivity, profile

    activities = [ProfilerActivity.CPU, ProfilerActivity.CUDA]
    count = min(runner.burst or 2, runner.most)
    runner.start()
    runner.wait()
    with profile(activities=activities[: 1 if device == "cpu" else 2]) as profiler:
        runner.steps(count)
        runner.wait()
    events = [(str(event.name), event.device_type.name == "CUDA") for event in profiler.events()]
    return counted(events, count, runner.graphs())


def counted(events: list[tuple[str, bool]], count: int, graphs: str) -> tuple[float, float]:
    """Count launches and kernels of a step, from names of events and whether they are the GPU's.

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
    """Measure the FLOP/s of a bf16 product of random square matrices: the median."""
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
    """Measure the memory of the GPU that nobody has; 0 if there is no GPU.

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
