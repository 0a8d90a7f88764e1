"""Measure what Ray costs in bulk sampling, and compute how far it scales.

- the rate of Ray's workers, against as many processes of Python's own pool: the same shards
- what the driver does for a task, and how fast it writes shards
- from these: the part of perfect scaling that more workers reach, and how many bytes of finished
  shards wait for the driver; simulated, so exact
"""

import heapq
import os
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from common.inside import Job, OnRay, Opening, bundle_sha256, draw, ray_core
from common.report import Figure, finish, parser
from common.timing import Turn, interleave, ratios

import difftool
from difftool.files import write_atomic

LEAST = 0.9  # of the rate without Ray, and of perfect scaling
SECONDS = 10.0  # of a task
COUNTS = (1, 8, 64, 512, 4096)  # workers of the simulation
SAMPLES = {"50,000": 50_000, "a million": 1_000_000}

Range = tuple[int, int]  # the first sample of a shard, and how many it has


@dataclass(frozen=True)
class Costs:
    """Seconds: of a sample in a worker, of the driver for a shard, and of a worker's start."""

    sample: float
    task: float
    byte: float
    start: float
    bytes_of_sample: float


def main() -> int:
    arguments = parser(__doc__, "out", rounds=3)
    arguments.add_argument("--model", default="ddpm-mnist", help="name, or folder of a bundle")
    arguments.add_argument("--steps", type=int, default=50)
    arguments.add_argument("--workers", type=int, default=os.cpu_count())
    arguments.add_argument("--shard-size", type=int, default=1000, help="of the simulation")
    arguments.add_argument("--seconds", type=float, default=SECONDS, help="of a task")
    options = arguments.parse_args()
    figures, costs = measure(
        job(options.model, options.steps), options.workers, options.rounds, options.seconds
    )
    for name, n in SAMPLES.items():
        figures += scaling(costs, name, n, options.shard_size)
    setup = {"model": Path(options.model).name, "steps": options.steps, "workers": options.workers}
    return finish("scale", figures, options, **setup, shard_size=options.shard_size)


def job(model: str, steps: int) -> Job:
    """Give what all shards have in common, on one thread."""
    loaded = difftool.load(model, threads=1)
    opening = Opening(
        model=model,
        sha256=bundle_sha256(loaded.bundle),
        backend=loaded.backend.name,
        precision="fp32",
        threads=1,
        device=0,
        max_batch=loaded.max_batch,
        max_work=difftool.runtime.MAX_WORK,
        limits=None,
        trust=(),
    )
    program = difftool.samplers.ddim(loaded.spec, steps=steps)
    return Job(opening=opening, program=program, seed=0, labels=None, guidance_scale=1.0)


def measure(common: Job, workers: int, rounds: int, seconds: float) -> tuple[list[Figure], Costs]:
    """Compare the rates of workers with and without Ray, and take the costs apart."""
    batch = common.opening.max_batch or 1
    start = timed(lambda: draw(common, 0, batch))  # it opens the model, too
    of_batch = timed(lambda: draw(common, 0, batch))
    size = batch * max(1, round(seconds / of_batch))
    ranges = [(number * size, size) for number in range(2 * workers)]
    shard = draw(common, 0, batch)
    with cluster(workers) as ray, TemporaryDirectory() as folder:
        on_ray = OnRay(ray, cpus=1, gpus=0)
        pool = ProcessPoolExecutor(workers, get_context("spawn"))
        turns: dict[str, Turn] = {
            "processes": lambda: list(pooled(pool, common, ranges)),
            "Ray": lambda: list(on_ray.draw(common, ranges)),
        }
        taken = interleave(turns, rounds=rounds)
        pool.shutdown()
        # Shards of one sample and one step: all that is left is the driver's work, and Ray's.
        short = replace(common, program=difftool.samplers.ddim(spec_of(common), steps=1))
        many = [(first, 1) for first in range(50 * workers)]
        alone = timed(lambda: [draw(short, *each) for each in many[:20]]) / 20
        list(on_ray.draw(short, many[:workers]))
        task = max(0.0, timed(lambda: list(on_ray.draw(short, many))) / len(many) - alone / workers)
        file = Path(folder, "shard")
        byte = timed(lambda: write_atomic(file, shard * 100)) / (100 * len(shard))
    costs = Costs(of_batch / batch, task, byte, max(0.0, start - of_batch), len(shard) / batch)
    rate = ratios(taken["processes"], taken["Ray"])
    return [
        Figure("seconds of a task", [of_batch * size / batch], unit="s"),
        Figure("rate with Ray / without", rate, at_least=LEAST),
        Figure("driver and Ray, a task", [1e3 * task], unit="ms"),
        Figure("writing of shards", [1e-6 / byte], unit="MB/s"),
    ], costs


def scaling(costs: Costs, name: str, n: int, shard_size: int) -> list[Figure]:
    """Give the part of perfect scaling for each number of workers, and what waits at most."""
    found = {workers: simulate(costs, n, shard_size, workers) for workers in COUNTS}
    figures = []
    for workers, (seconds, waiting) in found.items():
        part = costs.sample * n / workers / seconds
        figures += [
            Figure(f"{name}, {workers} workers: hours", [seconds / 3600], unit="h"),
            Figure(f"{name}, {workers} workers: of perfect scaling", [part]),
            Figure(f"{name}, {workers} workers: waiting at most", [1e-6 * waiting], unit="MB"),
        ]
    return figures


def simulate(costs: Costs, n: int, shard_size: int, workers: int) -> tuple[float, float]:
    """Give the seconds until the last shard is written, and the most bytes that wait for that.

    A worker takes the next shard as soon as it has done one. The driver takes shards one by one, in
    the order in which they are done.
    """
    sizes = [min(shard_size, n - first) for first in range(0, n, shard_size)]
    free = [costs.start] * min(workers, len(sizes))
    done: list[tuple[float, int]] = []
    for size in sizes:
        end = heapq.heappop(free) + size * costs.sample
        heapq.heappush(free, end)
        done.append((end, size))
    done.sort()
    written, ends = 0.0, []
    for end, size in done:
        taking = costs.task + size * costs.bytes_of_sample * costs.byte
        written = max(written, end) + taking
        ends.append(written)
    # A shard waits from its end until it is written: at each end, all that were not written yet.
    most, first, waiting = 0.0, 0, 0.0
    for end, size in done:
        waiting += size
        while ends[first] <= end:
            waiting -= done[first][1]
            first += 1
        most = max(most, waiting)
    return written, most * costs.bytes_of_sample


def pooled(pool: ProcessPoolExecutor, common: Job, ranges: Sequence[Range]) -> Iterator[bytes]:
    """Draw shards in a pool of processes."""
    for task in as_completed([pool.submit(draw, common, *each) for each in ranges]):
        yield task.result()


@contextmanager
def cluster(workers: int) -> Iterator[Any]:
    """Connect to a cluster of this machine that has so many cores."""
    ray = ray_core()
    ray.init(
        address="local",
        num_cpus=workers,
        include_dashboard=False,
        log_to_driver=False,
        _system_config={"worker_niceness": 0},  # by default they give way to other processes
    )
    try:
        yield ray
    finally:
        ray.shutdown()


def spec_of(common: Job) -> difftool.ModelSpec:
    """Give the spec of the model that is drawn from."""
    return difftool.runtime.open_bundle(common.opening.model).spec


def timed(call: Turn) -> float:
    """Give the seconds of a call."""
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


if __name__ == "__main__":
    sys.exit(main())
