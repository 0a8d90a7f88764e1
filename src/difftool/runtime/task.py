"""What a call to `Model.sample` asks for, checked, and its parts for the samples of one batch."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from difftool.diffusion.columns import Column
from difftool.diffusion.labels import Labels
from difftool.diffusion.program import Program
from difftool.diffusion.spec import ModelSpec
from difftool.errors import UsageError
from difftool.runtime.draws import Draws
from difftool.runtime.edits import Edit, of_samples

Floats = NDArray[np.float32]
Indices = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Task:
    """A run of `n` samples; see `Model.sample`. Positions [N] count them from 0.

    A batch may be padded: positions outside 0 .. n - 1 get what the sample at that end gets, but
    their own noise.
    """

    program: Program
    n: int
    seed: int
    first_sample: int
    labels: Labels | None
    init: Floats | None
    edit: Edit | None
    between: tuple[int, int] | None

    def draws(self, positions: Indices, shape: tuple[int, ...]) -> Draws:
        """The noise of the samples at these positions."""
        if self.between is None:
            return Draws(self.seed, self.first_sample + positions, shape)
        samples = np.tile(np.array(self.between), (len(positions), 1))
        angles = self.within(positions) / max(1, self.n - 1) * (np.pi / 2)
        return Draws(self.seed, samples, shape, angles)

    def labels_at(self, positions: Indices) -> Labels | None:
        """The labels of the samples at these positions."""
        if self.labels is None:
            return None
        return replace(self.labels, of=self.labels.of[self.within(positions)])

    def init_at(self, positions: Indices, shape: tuple[int, ...]) -> Floats | None:
        """The clean data [N, *S] that the samples at these positions start from."""
        if self.init is None:
            return None
        return of_samples(self.init, self.within(positions), np.empty(shape, np.float32))

    def within(self, positions: Indices) -> Indices:
        """The positions; those of a padded batch outside of the run are that of its nearest end."""
        return np.clip(positions, 0, self.n - 1)


def labels_of(
    spec: ModelSpec, labels: ArrayLike | None, guidance_scale: float, n: int, first: int
) -> Labels | None:
    """The labels [n] of a run; by default they go through the classes by the sample's index."""
    if not spec.classes:
        if labels is not None or guidance_scale != 1:
            raise UsageError("this model has no class labels", "leave labels and guidance out")
        return None
    if labels is None:
        return Labels((first + np.arange(n)) % spec.classes, guidance_scale)
    given = np.asarray(labels)
    if given.dtype.kind not in "iu" or given.shape not in ((), (n,)):
        raise UsageError(
            f"labels of shape {given.shape} for {n} samples", "give one integer, or one a sample"
        )
    return Labels(np.broadcast_to(given, (n,)).astype(np.int64), guidance_scale)


def require_uncoupled(program: Program) -> None:
    """UsageError if a sample of a program is not a function of its seed and index alone."""
    if program.coupled:
        raise UsageError(
            f"{program.name} shares its steps' sizes in a batch: a sample depends on its "
            "neighbours, so it is not the same in any number",
            'use corrector="adaptive" or "fixed", or leave deterministic out',
        )


def require_editable(program: Program, *, in_graph: bool) -> None:
    """UsageError if a program does not take its D alone from the estimate that is edited.

    `in_graph` says that the step graph itself makes the edit, before it takes any norm.
    """
    if program.table[:, Column.G].any():
        raise UsageError(
            f"{program.name} uses the raw network beside the denoised estimate, which is edited",
            "use raw_epsilon=false",
        )
    if program.adaptive and not in_graph:
        raise UsageError(
            f"{program.name} adapts its steps to the estimate before the edit",
            "use the corrector of fixed steps",
        )
