"""The protocol of backends whose samples share steps; the scheduler knows backends by it alone.

The step graph takes a row number for each sample, and a table. So one call can run samples of
several programs, if the rows of all these programs lie in one table.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from difftool.diffusion.labels import Labels
from difftool.diffusion.program import Program
from difftool.runtime.draws import Draws, start_noise
from difftool.runtime.protocols import Known

Floats = NDArray[np.float32]

IDLE: Final = -1  # a place of a batch in which no sample stands


@dataclass(frozen=True)
class Entry:
    """A sample before its first row.

    - `row`: where its program's rows begin in the common table
    - `program`, `draws`: which noise its start and its rows take; `draws` are those of this sample
      alone
    - `init`: the clean sample to start from, [1, *S]; None if it starts from noise
    - `known`: what replaces D in every row, [1, *S] each; None if nothing does
    """

    row: int
    program: Program
    draws: Draws
    init: Floats | None = None
    known: Known | None = None

    @cached_property
    def x(self) -> Floats:
        """Return x before the first row, float32 [*S], as the host draws it.

        A device that draws noise itself draws the start, too: see `drawn_scale`.
        """
        return np.asarray(start_noise(self.program, self.draws, self.init)[0])


class Slots(Protocol):
    """Samples in slots 0, 1, 2 ..., and a common table of the rows that they run.

    One thread uses an object of this class. A step that raises loses the samples that it ran; the
    others, and all tables, are as they were before.
    """

    @property
    def sizes(self) -> Sequence[int]:
        """Return how many samples a step can run together, from the fewest to the most."""
        ...

    def place(self, program: Program, labels: Labels | None, row: int, cond: int) -> None:
        """Write the rows that one sample runs into the common table; the conditioner runs here.

        `row` and `cond` say where the rows, and the conditioner's outputs for them, begin. The
        labels are those of one sample, or None if the model has no classes.

        Raises:
            UsageError: the model lacks the label, or the step graph what the program asks for.
        """
        ...

    def join(self, slot: int, entry: Entry) -> None:
        """Put a sample into a slot, over whatever was there."""
        ...

    def advance(self, places: Sequence[int]) -> None:
        """Run the next row of the samples in these slots together.

        `places` has one of the `sizes`: the slot whose sample stands at each place, or IDLE.
        """
        ...

    def read(self, slot: int, what: Literal["x", "denoised"]) -> Floats:
        """Return x [*S] of a slot, or D of its last row; a view that the next call may overwrite.

        D is there for the slots of the last `advance` only.
        """
        ...


@runtime_checkable
class OffersSlots(Protocol):
    """A backend that has slots."""

    def slots(self, count: int, most: int) -> Slots:
        """Return so many slots, of which `most` can run together."""
        ...
