"""Who draws the shards: this process, or the workers of a Ray cluster."""

import contextlib
import logging
import signal
import socket
from collections.abc import Generator, Iterator, Sequence
from itertools import islice
from typing import Any, Final, Protocol

from difftool.alone import ray_core
from difftool.errors import ResourceError, UsageError, first_line
from difftool.scale import work
from difftool.scale.work import Job, Opening

LOCAL: Final = "local"

_AHEAD: Final = 1000  # tasks that a cluster is given at a time; it shares them out
_RETRIES: Final = 10  # of a shard whose worker died; memory that runs out kills the next one, too
_PATIENCE: Final = 5.0  # seconds that an address has to answer

Range = tuple[int, int]  # the first sample of a shard, and how many it has
Shards = Generator[tuple[Range, bytes], None, None]


class Workers(Protocol):
    """Processes that open models and draw shards."""

    def settle(self, opening: Opening) -> tuple[str, int]:
        """Return the backend and the batch that a worker chooses if they are left open."""

    def draw(self, job: Job, ranges: Sequence[Range]) -> Shards:
        """Yield each range with its shard, in any order."""


class Here:
    """This process alone."""

    def settle(self, opening: Opening) -> tuple[str, int]:
        """See `Workers`."""
        return work.settle(opening)

    def draw(self, job: Job, ranges: Sequence[Range]) -> Shards:
        """See `Workers`."""
        for first, n in ranges:
            yield (first, n), work.draw(job, first, n)


class OnRay:
    """The workers of a cluster that this process is connected to."""

    def __init__(self, ray: Any, *, cpus: int, gpus: float) -> None:
        self._ray = ray
        self._remote = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=_RETRIES)

    def settle(self, opening: Opening) -> tuple[str, int]:
        """See `Workers`."""
        found: tuple[str, int] = self._get(self._remote(work.settle).remote(opening))
        return found

    def draw(self, job: Job, ranges: Sequence[Range]) -> Shards:
        """See `Workers`."""
        draw, common = self._remote(work.draw), self._ray.put(job)
        running: dict[Any, Range] = {}
        rest = iter(ranges)
        try:
            while True:
                for first, n in islice(rest, _AHEAD - len(running)):
                    running[draw.remote(common, first, n)] = first, n
                if not running:
                    return
                (done, *_), _ = self._ray.wait(list(running))
                yield running.pop(done), self._get(done)
        finally:
            for task in running:
                self._ray.cancel(task, force=True)

    def _get(self, task: Any) -> Any:
        """Return what a task returned; a difftool's error is raised as in this process."""
        errors = self._ray.exceptions
        try:
            return self._ray.get(task)
        except errors.RayTaskError as error:
            raise error.cause from error
        except errors.RayError as error:
            raise ResourceError(
                f"the cluster gave a task up: {first_line(error)}",
                "repeat the command, which draws what is missing",
            ) from error


@contextlib.contextmanager
def workers(address: str | None, *, cpus: int, gpus: float) -> Iterator[Workers]:
    """Yield this process, or the workers of the cluster at `address`; "local" starts one here.

    A program that is connected to a cluster already stays so.

    Raises:
        UsageError: the address is none, or no machine of the cluster has so many CPUs and GPUs.
        ResourceError: nobody listens at the address, or Ray does not start.
        MissingDependencyError: ray is not installed.
    """
    if address is None:
        try:
            yield Here()
        finally:
            work.forget()
        return
    if address != LOCAL:
        _require_listener(address)
    ray = ray_core()
    connected = ray.is_initialized()
    try:
        if not connected:
            _connect(ray, address)
        _require_room(ray, cpus, gpus)
        yield OnRay(ray, cpus=cpus, gpus=gpus)
    finally:
        if not connected:
            with sigterm_kept():
                ray.shutdown()


@contextlib.contextmanager
def sigterm_kept() -> Iterator[None]:
    """Keep what SIGTERM does. Ray sets another handler at its start, and takes it away at its end.

    It takes away what the system knows of, so a handler must be set again even if Python still has
    it.
    """
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # only the main thread has handlers
            signal.signal(signal.SIGTERM, before)


def _connect(ray: Any, address: str) -> None:
    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if address == LOCAL:
        quiet["include_dashboard"] = False
    try:
        with sigterm_kept():
            ray.init(address=address, **quiet)
    except Exception as error:  # of many kinds, Exception itself among them
        raise ResourceError(
            f"Ray does not start: {first_line(error)}",
            "try again when the machine has less to do, or read /tmp/ray/session_latest/logs",
        ) from error


def _require_listener(address: str) -> None:
    """Refuse an address at which Ray would try for minutes, and then end the process."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or "/" in host:
        raise UsageError(f"{address!r} is no address of a cluster", f"give HOST:PORT, or {LOCAL}")
    try:
        socket.create_connection((host, int(port)), timeout=_PATIENCE).close()
    except (OSError, OverflowError) as error:
        raise ResourceError(
            f"no cluster answers at {address}", "start one: ray start --head --port 6379"
        ) from error


def _require_room(ray: Any, cpus: int, gpus: float) -> None:
    """Refuse tasks for which no machine is large enough, since they would wait for ever."""
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if not any(has.get("CPU", 0) >= cpus and has.get("GPU", 0) >= gpus for has in machines):
        raise UsageError(
            f"no machine of the cluster has {cpus} CPUs and {gpus:g} GPUs",
            "set `cpus_per_task` and `gpus_per_task` to what a machine has",
        )
