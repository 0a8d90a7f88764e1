"""The thread that takes a scheduler's turns."""

import atexit
import os
import threading
import weakref

from difftool.diffusion.program import Program
from difftool.errors import ArtefactError, UsageError, first_line
from difftool.log import logger
from difftool.runtime.request import Request
from difftool.runtime.scheduling.scheduler import Scheduler
from difftool.runtime.scheduling.settings import Counts, Load
from difftool.runtime.scheduling.ticket import Ticket

_log = logger(__name__)


class Runner:
    """A scheduler at work in a thread, which ends with `close` or when this object is collected.

    A ticket holds this object until its request has ended. So `load(...).submit(...).result()`
    works.
    """

    def __init__(self, scheduler: Scheduler) -> None:
        self.settings, self._scheduler = scheduler.settings, scheduler
        self._process = os.getpid()
        # A daemon, so that an application that ends does not wait for all requests. `_close_all`
        # waits for the current step: a thread that is killed within a library may crash it.
        self._thread = threading.Thread(
            target=_run, args=(scheduler,), name="difftool-scheduler", daemon=True
        )
        # Neither wait nor lock: this runs wherever an object happens to be collected.
        weakref.finalize(self, scheduler.stop).atexit = False
        self._thread.start()
        _runners.add(self)

    def submit(
        self,
        request: Request,
        program: Program,
        *,
        priority: int = 0,
        deadline: float | None = None,
    ) -> Ticket:
        """Queue a request; see `Model.submit`."""
        if os.getpid() != self._process:
            raise UsageError("a fork has no thread of this scheduler", "load the model in it again")
        ticket = self._scheduler.submit(request, program, priority=priority, deadline=deadline)
        ticket.keep(self)
        return ticket

    def require_room(self) -> None:
        """Raise Busy, and count a refusal, if as many requests wait as may.

        Whoever asks this first need not make a request that `submit` would refuse.
        """
        self._scheduler.require_room()

    @property
    def counts(self) -> Counts:
        """Return how many requests came, and how they ended."""
        return self._scheduler.counts

    @property
    def occupied(self) -> int:
        """Return how many samples are on their way."""
        return self._scheduler.occupied

    @property
    def load(self) -> Load:
        """Return what there is to do, and what was done."""
        return self._scheduler.load

    def healthy(self, limit: float) -> bool:
        """Tell if the thread is alive, and its current step at most `limit` seconds old."""
        return self._thread.is_alive() and self._scheduler.healthy(limit)

    def close(self, *, drain: bool = True, timeout: float | None = None) -> bool:
        """Refuse new requests, end the others, and wait for the end of the thread.

        With `drain` requests run to their ends. Without it they are cancelled, and the thread ends
        after the current step. Return False if it has not ended after `timeout` seconds.
        """
        if os.getpid() != self._process:
            return True  # a fork has none of these threads
        self._scheduler.close(drain=drain)
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout)
        return not self._thread.is_alive()


_runners: "weakref.WeakSet[Runner]" = weakref.WeakSet()
_AT_EXIT = 10.0  # seconds for the current step of a model


@atexit.register
def _close_all() -> None:
    for runner in tuple(_runners):
        runner.close(drain=False, timeout=_AT_EXIT)


def _run(scheduler: Scheduler) -> None:
    try:
        while scheduler.wait():
            while scheduler.turn():
                pass
    except BaseException as error:  # whatever it is, nobody may be left waiting
        _log.exception("the scheduler has a defect")
        scheduler.abandon(ArtefactError(f"the scheduler ended: {first_line(error)}", "report it"))
