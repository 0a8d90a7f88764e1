"""The settings of a scheduler, the counts of its requests, and its load."""

from dataclasses import dataclass
from typing import Literal

from difftool.errors import UsageError


@dataclass(frozen=True)
class SchedulerSettings:
    """The settings of a scheduler.

    - `batching`: "step", a sample may join at any row; "request", only samples of equal programs
      that begin together share steps, and others wait for their end; "off", one request at a time.
      The last two are there to measure what the first one gains.
    - `queue`: how many requests may wait to begin; one more is refused
    - `slots`: how many samples may be on their way, at least a batch; by default four batches
    - `brief`: the most rows of a brief program. The last batch of slots, beyond the first one, is
      for brief programs alone, and so is an eighth of the table. So a brief request waits for other
      brief ones at most, however many long ones there are.
    - `ageing`: after how many steps a sample that was left out goes first within its priority
    """

    batching: Literal["step", "request", "off"] = "step"
    queue: int = 64
    slots: int | None = None
    brief: int = 100
    ageing: int = 16

    def __post_init__(self) -> None:
        if self.batching not in ("step", "request", "off"):
            raise UsageError(f"unknown batching {self.batching!r}", "one of: step, request, off")
        if self.queue < 1 or self.ageing < 1 or (self.slots is not None and self.slots < 1):
            raise UsageError("a scheduler without queue, slots or ageing", "all are at least 1")
        if self.brief < 0:
            raise UsageError(f"a brief program of {self.brief} rows", "0 or more; 0 keeps no slots")


@dataclass(frozen=True)
class Counts:
    """Requests since the beginning: accepted == ok + cancelled + timeout + failed + pending."""

    accepted: int = 0
    ok: int = 0
    cancelled: int = 0
    timeout: int = 0
    failed: int = 0
    refused: int = 0
    """Those that found the queue full; they are not among the accepted."""

    @property
    def pending(self) -> int:
        """Return how many have been accepted and have not ended."""
        return self.accepted - self.ok - self.cancelled - self.timeout - self.failed


@dataclass(frozen=True)
class Load:
    """What a scheduler has to do now, and what it has done since its beginning.

    Two of these, some time apart, tell the steps in that time, and how full the batch was.
    """

    waiting: int
    """Requests that have not begun."""
    running: int
    """Samples that are in slots."""
    slots: int
    """How many samples may be in slots."""
    max_batch: int
    """How many of them may share a step."""
    steps: int
    """Steps since the beginning."""
    sample_steps: int
    """Samples in all these steps, at most `max_batch` in each."""
