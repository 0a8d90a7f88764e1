"""A request for samples, as one value: `Model.run` runs it, and a queue can hold it.

A new argument of `Model.sample` and `Model.stream` is a new field here, and nothing else: both take
the fields of a `Request` as their arguments.
"""

import functools
import inspect
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import Concatenate, Final, ParamSpec, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from difftool.diffusion.labels import Labels, class_indices, drawn_labels
from difftool.diffusion.program import Program
from difftool.diffusion.spec import ModelSpec
from difftool.errors import ResourceError, UsageError
from difftool.runtime.draws import Draws
from difftool.runtime.edits import Edit, at_positions, require_editable
from difftool.runtime.state import Hook

Floats = NDArray[np.float32]
Indices = NDArray[np.int64]

_MAX_SAMPLES: Final = 1 << 32  # a sample's index is one 32-bit word of the noise counter

_Fields = ParamSpec("_Fields")
_Model = TypeVar("_Model")
_Result = TypeVar("_Result")


@dataclass(frozen=True, eq=False)
class Request:
    """Samples `first_sample` .. `first_sample + n` of a seed, and how they are drawn.

    Arguments without a meaning are refused with a UsageError: by the request itself when it is
    made, or by `check` if that depends on the model.

    The other methods return the parts that a batch needs. Positions [N] count the samples from 0. A
    batch may be padded: a position outside 0 .. n - 1 gets what the sample at that end gets, but
    noise of its own.
    """

    program: Program | None = None
    """The rows to run; by default the program that the bundle was exported with."""

    _: KW_ONLY

    n: int = 16
    """The number of samples."""

    seed: int = 0
    """0 to 2^64 - 1. A sample is a function of its seed and index alone, but for rounding."""

    first_sample: int = 0
    """The index of the first sample."""

    labels: ArrayLike | None = None
    """Class labels, one for all or [n]: indices, or names such as "cat", if the classes have names.

    The label `spec.classes`, or "none", stands for no class.

    By default the class of each sample is drawn as its noise is, by the seed and its index, so that
    the samples come from the whole distribution. With `init` or `edit` the data have a class, so
    there the default is no class, if the model knows that label.
    """

    guidance_scale: float = 1.0
    """The scale of classifier-free guidance (Ho and Salimans 2021); 1 is none."""

    init: ArrayLike | None = None
    """Clean data [*S] or [n, *S] to start from under the first row's noise.

    This is SDEdit (Meng et al. 2022). Compile the program for `spec.up_to(strength)`.
    """

    edit: Edit | None = None
    """A function that revises the denoised estimate of every row; see `difftool.edits`."""

    between: tuple[int, int] | None = None
    """Two sample indices; the n samples lead from one to the other.

    They lie evenly on the arc between the noises of the two (as in Song et al. 2021a, appendix
    D.5, for all draws).
    """

    deterministic: bool = False
    """Pad every batch to the model's `max_batch`, and always give a sample the same slot in it.

    A sample is then the same bit for bit, whatever `n` and `first_sample` are. A program whose
    steps adapt to the whole batch is refused.
    """

    every: int = 1
    """After how many rows a state is shown; one is also shown after the last."""

    on_step: Hook | None = None
    """A function of each state that is shown; if it returns False, Cancelled is raised."""

    def __post_init__(self) -> None:
        if self.n < 1 or self.every < 1:
            raise UsageError(f"{self.n} samples, every {self.every} rows", "both are at least 1")
        if not 0 <= self.first_sample <= _MAX_SAMPLES - self.n:
            raise UsageError(
                f"{self.n} samples, the first sample {self.first_sample}",
                f"indices are 0 to {_MAX_SAMPLES - 1}",
            )
        # Arrays from here on, so that no batch converts them again.
        if self.labels is not None:
            object.__setattr__(self, "labels", _one_each(self.labels, self.n))
        if self.init is not None:
            object.__setattr__(self, "init", np.asarray(self.init, np.float32))

    def check(self, program: Program, spec: ModelSpec, *, in_graph: bool, max_work: int) -> None:
        """Refuse a program that this request cannot run on a model, before memory is taken.

        `in_graph` says that the model's step graph itself makes the edit.

        Raises:
            ResourceError: it is more work than `max_work`: samples times their numbers times rows.
            UsageError: the model has no labels, or the program cannot be run in this way.
        """
        work = self.n * int(np.prod(spec.shape, dtype=object)) * len(program)
        if work > max_work:
            raise ResourceError(
                f"{self.n} samples of {len(program)} steps are {work} numbers; "
                f"{max_work} are allowed",
                f"draw fewer at a time, or raise `max_work={work}`",
            )
        if not spec.classes and (self.labels is not None or self.guidance_scale != 1):
            raise UsageError("this model has no class labels", "leave labels and guidance out")
        if self.labels is not None and (given := np.asarray(self.labels)).dtype == object:
            class_indices(spec, {*given})  # each name is there
        if self.edit is not None:
            require_editable(program, in_graph=in_graph)
        if self.deterministic and program.coupled:
            raise UsageError(
                f"{program.name} shares its steps' sizes in a batch: a sample depends on its "
                "neighbours, so it is not the same in any number",
                'use corrector="adaptive" or "fixed", or leave deterministic out',
            )

    def draws(self, positions: Indices, spec: ModelSpec) -> Draws:
        """Return the noise of the samples at these positions."""
        if self.between is None:
            return Draws(self.seed, self.first_sample + positions, spec.shape)
        samples = np.tile(np.array(self.between), (len(positions), 1))
        angles = self.within(positions) / max(1, self.n - 1) * (np.pi / 2)
        return Draws(self.seed, samples, spec.shape, angles)

    def labels_at(self, positions: Indices, spec: ModelSpec) -> Labels | None:
        """Return the labels of the samples at these positions; None if a model has no classes."""
        if not spec.classes:
            return None
        within = self.within(positions)
        if self.labels is None:
            free = self.init is None and self.edit is None
            drawn = self._drawn_labels(within, spec.classes)
            unknown = np.full_like(within, spec.classes)
            return Labels(drawn if free or not spec.null_label else unknown, self.guidance_scale)
        chosen = np.asarray(self.labels)[within]
        named = chosen.dtype == object
        return Labels(class_indices(spec, chosen) if named else chosen, self.guidance_scale)

    def _drawn_labels(self, within: Indices, classes: int) -> Indices:
        if self.between is None:
            return drawn_labels(self.seed, self.first_sample + within, classes)
        # A class does not lead to another by degrees: each half of the way has that of its end.
        ends = drawn_labels(self.seed, np.array(self.between), classes)
        return ends[(2 * within > self.n - 1).astype(np.int64)]

    def init_at(self, positions: Indices, spec: ModelSpec) -> Floats | None:
        """Return the clean data [N, *S] that the samples at these positions start from."""
        if self.init is None:
            return None
        return at_positions(np.asarray(self.init), self.within(positions), spec.shape)

    def within(self, positions: Indices) -> Indices:
        """Return the positions; for one outside of the run, that of the nearest end."""
        return np.clip(positions, 0, self.n - 1)


def takes_request(
    make: Callable[_Fields, Request],
) -> Callable[
    [Callable[[_Model, Request], _Result]], Callable[Concatenate[_Model, _Fields], _Result]
]:
    """Let a method that takes a `Request` take its fields instead: `@takes_request(Request)`.

    Type checkers and `inspect.signature` then see each field as an argument, and so the arguments
    are written once.
    """

    def decorate(
        method: Callable[[_Model, Request], _Result],
    ) -> Callable[Concatenate[_Model, _Fields], _Result]:
        @functools.wraps(method)
        def call(model: _Model, /, *fields: _Fields.args, **named: _Fields.kwargs) -> _Result:
            return method(model, make(*fields, **named))

        own, asked = inspect.signature(method), inspect.signature(make)
        model = next(iter(own.parameters.values()))
        call.__signature__ = own.replace(  # type: ignore[attr-defined]
            parameters=[model, *asked.parameters.values()]
        )
        return call

    return decorate


def _one_each(labels: ArrayLike, n: int) -> Indices | NDArray[np.object_]:
    """Return the labels [n]; those with names among them as objects, each a str or an int."""
    given = np.asarray(labels)
    named = given.dtype.kind in "UO"
    if named:
        given = np.asarray(labels, object)  # else a number among names would be a text
        right = all(isinstance(each, str) or _is_index(each) for each in given.flat)
    else:
        right = given.dtype.kind in "iu"
    if not right or given.shape not in ((), (n,)):
        raise UsageError(
            f"labels of shape {given.shape} for {n} samples",
            "give one integer or name, or one a sample",
        )
    whole = np.broadcast_to(given, (n,))
    return whole if named else whole.astype(np.int64)


def _is_index(label: object) -> bool:
    return (
        isinstance(label, int | np.integer)
        and not isinstance(label, bool)
        and abs(int(label)) < 1 << 31
    )
