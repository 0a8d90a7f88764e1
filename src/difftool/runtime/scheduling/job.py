"""A request in the scheduler, and its samples: their labels, noise and rows, one sample at a time.

A sample's bits are those that it has in a batch of its own, as `Model.sample` with n=1 makes one.
"""

import hashlib
import math
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from difftool.diffusion.features import Feature
from difftool.diffusion.labels import Labels, check_labels
from difftool.diffusion.program import Program
from difftool.diffusion.spec import ModelSpec
from difftool.errors import UsageError
from difftool.runtime.backends.prepare import require_features
from difftool.runtime.edits import Inpaint
from difftool.runtime.request import Request
from difftool.runtime.scheduling.pool import Block
from difftool.runtime.scheduling.slots import Entry
from difftool.runtime.scheduling.ticket import Ticket

Floats = NDArray[np.float32]


@dataclass(eq=False)
class Job:
    """A request of `n` samples: `begun` of them have had a slot, and `left` are not done.

    It is given up at `deadline`, and goes before others from `hurry` on. If it is `brief`, it may
    take the slots and the part of the table that long ones leave free.
    """

    request: Request
    program: Program
    spec: ModelSpec
    priority: int
    deadline: float
    hurry: float
    brief: bool
    ticket: Ticket = field(default_factory=Ticket)
    begun: int = 0
    attained: int = 0  # rows run, over all samples
    waited: int = 0  # steps for which the next sample has found no slot
    samples: "set[Sample]" = field(default_factory=set)  # those in slots
    result: Floats | None = None

    def __post_init__(self) -> None:
        self.left, self.steps = self.request.n, len(self.program)

    def due(self, now: float) -> float:
        """Return the deadline once it counts, and until then that there is none.

        A server gives one to each request. If it counted from the beginning, whoever came first
        would go first, and short requests would wait for long ones.
        """
        return self.deadline if now >= self.hurry else math.inf

    @cached_property
    def program_key(self) -> bytes:
        """Return a digest, which is equal for equal programs only."""
        arrays = self.program.table, self.program.conds, self.program.draws
        parts = [part for array in arrays for part in (repr(array.shape).encode(), array.tobytes())]
        return hashlib.sha256(b"".join(parts)).digest()

    @property
    def block_size(self) -> tuple[int, int]:
        """Return how many rows, and at most how many conds, the program has for one label."""
        labels = 2 if self.request.guidance_scale != 1 else 1  # guidance runs the null label, too
        return self.steps, labels * len(self.program.conds)

    def rows(self, position: int) -> tuple[bytes, Labels | None]:
        """Return the key of the rows that a sample runs, and its label."""
        labels = self.request.labels_at(np.array([position]), self.spec)
        if labels is None:
            return self.program_key, None
        label = f"{labels.of[0]} {float(labels.guidance_scale).hex()}"
        return self.program_key + label.encode(), labels

    def entry(self, position: int, row: int) -> Entry:
        """Return a sample before its first row, which begins at `row` of the common table."""
        at = np.array([position])
        draws, init = self.request.draws(at, self.spec), self.request.init_at(at, self.spec)
        edit = self.request.edit
        known = edit.at(at, self.spec.shape) if isinstance(edit, Inpaint) else None
        return Entry(row, self.program, draws, init, known)

    def place(self, position: int, most: int) -> int | None:
        """Return where in a batch of `most` a deterministic sample must stand; None for others."""
        index = self.request.first_sample + position
        return index % most if self.request.deterministic else None


@dataclass(eq=False)
class Sample:
    """The sample at a position of a job, in a slot, after `done` rows."""

    job: Job
    position: int
    slot: int
    block: Block
    place: int | None
    done: int = 0
    waited: int = 0  # steps for which it was left out


def require_shared(
    request: Request, program: Program, spec: ModelSpec, features: frozenset[Feature]
) -> None:
    """Raise UsageError if a request cannot share steps, or if the model cannot run it."""
    instead = "draw them with `Model.sample`"
    if request.on_step is not None:
        raise UsageError("a submitted request has no hook", "read `Ticket.stream` instead")
    if program.coupled:
        raise UsageError(f"{program.name} shares its steps' sizes in a batch", instead)
    if request.edit is not None and not isinstance(request.edit, Inpaint):
        raise UsageError("an edit in Python cannot share steps with other requests", instead)
    if request.edit is not None and Feature.KNOWN not in features:
        raise UsageError(
            f"this bundle's step graph has no {Feature.KNOWN}, so it inpaints alone", instead
        )
    count = 1 if request.labels is None else request.n  # labels chosen by default are all valid
    labels = request.labels_at(np.arange(count), spec)
    if labels is not None:
        labels = Labels(np.unique(labels.of), labels.guidance_scale)
        check_labels(spec, labels)
    require_features(features, program, labels)
