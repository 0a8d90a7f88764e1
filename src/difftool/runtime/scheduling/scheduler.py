"""The step scheduler: requests come and go at any row, and their samples share steps.

It starts no thread. Any thread may call `submit`, `counts`, `healthy` and `close`. One thread takes
the turns, and only that one touches the slots (see `difftool.runtime.scheduling.runner`).
"""

import math
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from queue import SimpleQueue
from typing import Final, Literal

import numpy as np

from difftool.diffusion.features import Feature
from difftool.diffusion.program import Program
from difftool.diffusion.spec import ModelSpec
from difftool.errors import Busy, CheckFailed, DeadlineExceeded, ResourceError, UsageError
from difftool.log import logger
from difftool.runtime.memory import no_memory, no_memory_for_samples
from difftool.runtime.request import Request
from difftool.runtime.scheduling.job import Job, Sample, require_shared
from difftool.runtime.scheduling.policy import Claim, order
from difftool.runtime.scheduling.pool import Block, Pool
from difftool.runtime.scheduling.settings import Counts, Load, SchedulerSettings
from difftool.runtime.scheduling.slots import Slots
from difftool.runtime.scheduling.ticket import Preview, Ticket
from difftool.runtime.scheduling.turns import Turns

Outcome = Literal["ok", "cancelled", "timeout", "failed"]

_log = logger(__name__)

_DEFAULT: Final = SchedulerSettings()
_BATCHES: Final = 4  # of samples on their way, of which one batch runs at a time


class Scheduler:
    """Runs requests of a model in `slots`, at most `most` samples in a step."""

    def __init__(
        self,
        offer: Callable[[int, int], Slots],
        spec: ModelSpec,
        features: frozenset[Feature],
        most: int,
        settings: SchedulerSettings = _DEFAULT,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings, self.spec, self.most = settings, spec, most
        self._features, self._clock = features, clock
        count = max(most, settings.slots or _BATCHES * most)
        self._slots = offer(count, most)
        self._capacity, self._free = count, list(range(count))[::-1]
        # How many samples that are not brief may be in slots, and how many are.
        self._most_long = max(most, count - most) if settings.brief else count
        self._long = 0
        self.pool = Pool()
        self._jobs: list[Job] = []
        self._running: dict[int, Sample] = {}  # by their slots
        self._done = 0, 0  # steps, and samples in them
        self._turns = Turns(self._slots, most, settings.ageing)
        # What other threads share with the one that takes the turns. A mailbox needs no lock.
        self._mail: SimpleQueue[Job | None] = SimpleQueue()
        self._lock = threading.RLock()  # a finalizer that calls `close` may run within
        self._counts, self._pending, self._waiting = Counts(), set[Ticket](), 0
        self._closed = False
        self._ending = False
        self._since: float | None = None  # when the turn began that is going on

    def submit(
        self,
        request: Request,
        program: Program,
        *,
        priority: int = 0,
        deadline: float | None = None,
    ) -> Ticket:
        """Queue a request, which was checked against the model; see `Model.submit`."""
        if not isinstance(priority, int):
            raise UsageError(f"a priority of {priority!r}", "give an integer; more goes first")
        if deadline is not None and not deadline > 0:
            raise UsageError(f"a deadline in {deadline} seconds", "give more than 0")
        require_shared(request, program, self.spec, self._features)
        now = self._clock()
        seconds = math.inf if deadline is None else deadline
        times, brief = (now + seconds, now + seconds / 2), len(program) <= self.settings.brief
        job = Job(request, program, self.spec, priority, *times, brief)
        for position in {0, request.n - 1}:
            _ = job.entry(position, 0).x  # refuses what has no meaning
        (rows, conds), room = job.block_size, self.pool.most(brief=job.brief)
        if rows > room[0] or conds > room[1]:
            raise ResourceError(
                f"{program.name} has {rows} rows and {conds} conds; "
                f"{room[0]} and {room[1]} can be shared",
                "draw it with `Model.sample`",
            )
        with self._lock:
            if self._closed:
                raise UsageError("this model's scheduler is closed", "load the model again")
            self.require_room()
            self._waiting += 1
            self._count("accepted")
            self._pending.add(job.ticket)
            self._mail.put(job)
        return job.ticket

    def require_room(self) -> None:
        """Refuse a request, as `submit` would, if as many wait as may."""
        with self._lock:
            if self._waiting >= self.settings.queue:
                self._count("refused")
                raise Busy(
                    f"{self._waiting} requests are waiting, as many as may",
                    "try again later, or give the queue more room: `queue`",
                )

    @property
    def counts(self) -> Counts:
        """Return how many requests came, and how they ended."""
        return self._counts

    @property
    def occupied(self) -> int:
        """Return how many samples are in slots."""
        return len(self._running)

    @property
    def load(self) -> Load:
        """Return what there is to do, and what was done."""
        return Load(self._waiting, len(self._running), self._capacity, self.most, *self._done)

    def healthy(self, limit: float) -> bool:
        """Tell if no step has been running for more than so many seconds."""
        since = self._since
        return since is None or self._clock() - since <= limit

    def close(self, *, drain: bool = True) -> None:
        """Refuse new requests; with `drain` run the others to their end, or else cancel them."""
        with self._lock:
            self._closed = True
            tickets = [] if drain else list(self._pending)
        for ticket in tickets:
            ticket.cancel()
        self.stop()

    def wait(self) -> bool:
        """Wait until there is something to do; False if there will never be anything."""
        if not self._jobs and not self._ending:
            self._take(self._mail.get())
        return bool(self._jobs) or not self._ending

    def turn(self) -> bool:
        """Take new requests, run one step, hand out its samples; False if no request is left.

        Only a defect of the scheduler itself raises: errors of a backend end requests.
        """
        self._since = self._clock()
        try:
            while not self._mail.empty():  # nobody else takes from it
                self._take(self._mail.get_nowait())
            self._end_overdue()
            self._admit()
            self._step()
        finally:
            self._since = None
        return bool(self._jobs)

    def abandon(self, error: BaseException) -> None:
        """End all requests with an error, and take no more; the slots may be in any state."""
        with self._lock:
            self._closed = self._ending = True
            tickets, self._pending = self._pending, set()
        self._jobs.clear()
        self._running.clear()
        for ticket in tickets:
            wanted = ticket.set_running_or_notify_cancel()
            self._count("failed" if wanted else "cancelled")
            if wanted:
                ticket.settle(error=error)

    def stop(self) -> None:
        """Let `wait` end once all requests have ended. This takes no lock, so a fork may call it.

        Nobody may be able to submit any more; `close` sees to that, too.
        """
        self._mail.put(None)

    def _take(self, job: Job | None) -> None:
        if job is None:
            self._ending = True
        else:
            self._jobs.append(job)

    def _end_overdue(self) -> None:
        now = self._clock()
        for job in list(self._jobs):
            if job.ticket.cancelled():
                self._end(job, "cancelled")
            elif now >= job.deadline:
                done = f"{job.request.n - job.left} of {job.request.n} samples were done"
                late = DeadlineExceeded(f"the deadline passed; {done}", "allow more time")
                self._end(job, "timeout", late)

    def _admit(self) -> None:
        """Give free slots to samples that wait, at most a batch of each request."""
        apart = self.settings.batching != "step"
        if apart and self._running:
            return
        waiting = [job for job in self._jobs if job.begun < job.request.n]
        if not waiting:
            return
        now = self._clock()
        claims = [
            Claim(job.priority, job.due(now), 0 if apart else job.attained, job.waited)
            for job in waiting
        ]
        lead: Job | None = None
        stuck: Job | None = None  # that finds no room in the table
        for job in (waiting[i] for i in order(claims, self.settings.ageing)):
            if stuck is not None and (stuck.brief or not job.brief):
                continue  # nobody overtakes it, but brief ones have room of their own
            if not apart or self._joins(lead, job):
                lead = lead or job
                if not self._fill(job):
                    stuck = job
        for job in waiting:
            job.waited = 0 if job.samples else job.waited + 1

    def _fill(self, job: Job) -> bool:
        """Begin what may of a job; False if there is no room for the next sample's rows."""
        try:
            while self._may_begin(job):
                if not self._begin(job):
                    return False
        except Exception as error:
            self._fail([job], error)
        return True

    def _may_begin(self, job: Job) -> bool:
        if not self._free or len(job.samples) == self.most or job.begun == job.request.n:
            return False
        if self._long >= self._most_long and not job.brief:
            return False
        full = self.settings.batching != "step" and len(self._running) == self.most
        return not full and not job.ticket.done()

    def _joins(self, lead: Job | None, job: Job) -> bool:
        """Tell if a job may begin beside the first one of a batch that runs to its end."""
        if lead is None:
            return True
        return self.settings.batching == "request" and lead.program_key == job.program_key

    def _begin(self, job: Job) -> bool:
        """Put the next sample of a job into a slot; False if there is no room for its rows."""
        if job.result is None:
            try:
                job.result = np.empty((job.request.n, *self.spec.shape), np.float32)
            except (MemoryError, ValueError) as error:
                raise no_memory_for_samples(job.request.n) from error
        position, slot = job.begun, self._free[-1]
        if (block := self._block(job, position)) is None:
            return False
        self._slots.join(slot, job.entry(position, block.rows[0]))
        if job.begun == 0:
            job.ticket.began = self._clock()
            with self._lock:
                self._waiting -= 1
        self._free.pop()
        block.users += 1
        job.begun += 1
        self._long += not job.brief
        sample = Sample(job, position, slot, block, job.place(position, self.most))
        job.samples.add(sample)
        self._running[slot] = sample
        self._turns.end()
        return True

    def _block(self, job: Job, position: int) -> Block | None:
        key, labels = job.rows(position)
        if (block := self.pool.find(key)) is not None:
            return block
        block = self.pool.add(key, *job.block_size, brief=job.brief)
        if block is not None:
            try:
                self._slots.place(job.program, labels, block.rows[0], block.conds[0])
            except BaseException:
                self.pool.remove(key)
                raise
        return block

    def _step(self) -> None:
        """Run the next row of the samples that are to be next."""
        chosen, places = self._turns.next(self._running, self._clock())
        if not chosen:
            return
        try:
            self._slots.advance(places)
        except Exception as error:
            self._fail((s.job for s in chosen), error)
            return
        steps, sample_steps = self._done
        self._done = steps + 1, sample_steps + len(chosen)
        for sample in chosen:
            sample.done += 1
            sample.job.attained += 1
        self._hand_out(chosen)

    def _hand_out(self, chosen: Sequence[Sample]) -> None:
        for sample in chosen:
            ticket, last = sample.job.ticket, sample.done == sample.job.steps
            if not (last or ticket.readers) or ticket.done():
                continue  # it was cancelled, or another sample of it has failed
            try:
                self._show(sample)
                if last:
                    self._finish(sample)
            except Exception as error:  # some devices tell only now that a step has failed
                self._fail([sample.job], error)

    def _show(self, sample: Sample) -> None:
        """Give readers a preview, if one is due."""
        job, steps = sample.job, sample.job.steps
        if sample.done % job.request.every and sample.done < steps:
            return
        for reader in tuple(job.ticket.readers):
            array = self._slots.read(sample.slot, reader.what).copy()
            index = job.request.first_sample + sample.position
            reader.put(Preview(index, sample.done, steps, array))

    def _finish(self, sample: Sample) -> None:
        job, x = sample.job, self._slots.read(sample.slot, "x")
        if not np.isfinite(x).all():
            raise CheckFailed(
                f"a sample of {job.program.name} is not finite",
                "take smaller steps, or let difftool verify say which row went wrong",
            )
        assert job.result is not None
        job.result[sample.position] = x
        self._leave(sample)
        job.left -= 1
        if not job.left:
            self._end(job, "ok")

    def _leave(self, sample: Sample) -> None:
        sample.block.users -= 1
        sample.job.samples.remove(sample)
        del self._running[sample.slot]
        self._turns.end()
        self._free.append(sample.slot)
        self._long -= not sample.job.brief

    def _fail(self, jobs: Iterable[Job], error: Exception) -> None:
        """End jobs with the error that `Model.sample` would raise."""
        if isinstance(error, MemoryError):
            told = no_memory(self.most)
            told.__cause__, error = error, told
        if isinstance(error, StopIteration):  # a task cannot be given it, and would wait for ever
            error = RuntimeError("the backend raised StopIteration")
        for job in dict.fromkeys(jobs):
            _log.warning("a request of %s failed: %s", job.program.name, error)
            self._end(job, "failed", error)

    def _end(self, job: Job, outcome: Outcome, error: BaseException | None = None) -> None:
        """Free a job's slots, count it, and tell who holds its ticket."""
        for sample in tuple(job.samples):
            self._leave(sample)
        self._jobs.remove(job)
        ticket = job.ticket
        if not ticket.set_running_or_notify_cancel():
            outcome = "cancelled"
        with self._lock:
            if not job.begun:
                self._waiting -= 1
            self._pending.discard(ticket)
            self._count(outcome)
        if outcome != "cancelled":
            ticket.settle(job.result, error)

    def _count(self, name: str) -> None:
        self._counts = replace(self._counts, **{name: getattr(self._counts, name) + 1})
