"""Build programs: collect rows, and record the sampler call that made them."""

import functools
import inspect
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, ParamSpec

import numpy as np

from difftool.diffusion.calls import SamplerCall
from difftool.diffusion.columns import UNBOUNDED, Column
from difftool.diffusion.program import MAX_ROWS, Program
from difftool.diffusion.spec import ModelSpec
from difftool.diffusion.start import Start, data, normal
from difftool.errors import UsageError

_P = ParamSpec("_P")


def sampler(make: Callable[_P, Program], *, later: Collection[str] = ()) -> Callable[_P, Program]:
    """Decorate a function from a spec to a program, so that the program records the call.

    The record holds the function's name and all arguments but the spec. If the function decided
    an argument itself, the record holds the value that it gave to `ProgramBuilder.build`. `later`
    names the arguments that were added after the sampler's release. They are recorded only if they
    differ from their defaults, so that older programs keep their records.

    Raises:
        TypeError: `build` was told of an argument that the function does not have.
    """
    (_, *parameters) = inspect.signature(make).parameters.values()
    defaults = {parameter.name: parameter.default for parameter in parameters}

    @functools.wraps(make)
    def recorded(*args: _P.args, **kwargs: _P.kwargs) -> Program:
        program = make(*args, **kwargs)
        # `make` runs first, so that its own TypeError for wrong arguments is the one that is seen.
        bound = inspect.signature(make).bind(*args, **kwargs).arguments
        decided = program.call.arguments
        if unknown := decided.keys() - defaults.keys():
            raise TypeError(f"{make.__name__} decides {min(unknown)!r}, which is not its argument")
        arguments = {
            name: decided.get(name, bound.get(name, default))
            for name, default in defaults.items()
            if name not in later or bound.get(name, default) != default
        }
        return replace(program, call=SamplerCall(make.__name__, arguments))

    return recorded


class ProgramBuilder:
    """A list of rows for a model, from which `build` makes the program.

    With `clip` every row clips D to the model's data range, if it has one. With `scaled` the
    state is x / alpha: every level is then (1, sigma / alpha), as in a variance-exploding process.
    """

    def __init__(self, spec: ModelSpec, *, clip: bool, scaled: bool = False) -> None:
        self._spec = spec
        self._clip = spec.data_range if clip and spec.data_range else (-UNBOUNDED, UNBOUNDED)
        self._scaled = scaled
        self._known: dict[float | None, tuple[float, float]] = {None: (1.0, 0.0)}
        self._levels: list[float] = []
        self._targets: list[tuple[float, float]] = []
        self._rows: list[tuple[dict[Column, float], Sequence[float]]] = []

    def level(self, index: float | None) -> tuple[float, float]:
        """Return (alpha, sigma) of x at a schedule index, which may be fractional.

        None is the clean sample, (1, 0).
        """
        if index is not None and index not in self._known:
            alpha, sigma = (float(value) for value in self._spec.schedule.at(index))
            self._known[index] = (1.0, sigma / alpha) if self._scaled else (alpha, sigma)
        return self._known[index]

    def row(
        self,
        level: float,
        target: float | None,
        *,
        a: float,
        b: float,
        d: float = 0.0,
        g: float = 0.0,
        c: Sequence[float] = (),
        push: tuple[float, float] = (0.0, 0.0),
        logvar: tuple[float, float] = (0.0, 0.0),
        snr: float = 0.0,
        batch_snr: float = 0.0,
    ) -> None:
        """Add a row that calls the network at schedule index `level` and leaves x at `target`.

        a, b, c, d and g are the coefficients of the update, `push` the (e, f) that enter the
        history, `logvar` the bounds of a learned log variance. With `snr` or `batch_snr` the step's
        size adapts to the norms of its drift and noise; see `difftool.diffusion.program`.
        UsageError if there are MAX_ROWS already.
        """
        if len(self._rows) == MAX_ROWS:
            raise UsageError(f"the sampler makes more than {MAX_ROWS} steps", "take fewer")
        self._levels.append(level)
        self._targets.append(self.level(target))
        values = {
            Column.A: a,
            Column.B: b,
            Column.G: g,
            Column.D: d,
            Column.E: push[0],
            Column.F: push[1],
            Column.LOGVAR_MIN: logvar[0],
            Column.LOGVAR_MAX: logvar[1],
            Column.SNR: snr,
            Column.BATCH_SNR: batch_snr,
            Column.GUIDANCE: 1.0,
        }
        self._rows.append((values, c))

    def build(
        self,
        decided: Mapping[str, Any] | None = None,
        *,
        start: Start | None = None,
        exact_noise: bool = True,
    ) -> Program:
        """Make the program of all rows so far.

        `decided` holds the sampler's arguments that its caller left open, such as `steps`, with
        the values that the sampler chose. By default x starts from a normal distribution. Its
        variance is sigma^2 of the first row's level, plus alpha^2 in a VP process, whose data has
        unit variance. If `up_to` has cut the schedule, x starts from given data instead.
        """
        levels = np.array(self._levels)
        # The conditioner runs once for each distinct level, however many rows share it.
        distinct, cond = np.unique(levels, return_inverse=True)
        slots = max([1, *(len(c) for _, c in self._rows)])  # step graphs need at least one slot
        table = np.zeros((len(levels), Column.HISTORY + slots))
        for row, (values, c) in zip(table, self._rows, strict=True):
            row[list(values)] = list(values.values())
            row[Column.HISTORY : Column.HISTORY + len(c)] = c
        c_in, c_skip, c_out = self._spec.coefficients(levels)
        # The network was trained on x; the state x / alpha is scaled back before it reads it.
        scale = self._spec.schedule.at(levels)[0] if self._scaled else 1.0
        table[:, Column.COND] = table[:, Column.NULL_COND] = cond
        table[:, Column.C_IN : Column.C_OUT + 1] = np.stack(
            [c_in * scale, c_skip * scale, c_out], 1
        )
        table[:, Column.CLIP_LOW], table[:, Column.CLIP_HIGH] = self._clip
        return Program(
            call=SamplerCall(arguments=decided or {}),
            table=table,
            conds=self._spec.conds(distinct),
            draws=np.arange(1, len(levels) + 1),
            targets=np.array([self.level(self._levels[0]), *self._targets]),
            start=self._prior() if start is None else start,
            exact_noise=exact_noise,
        )

    def _prior(self) -> Start:
        if self._spec.schedule.dropped:
            return data()
        alpha, sigma = self.level(self._levels[0])
        preserving = self._spec.schedule.variance_preserving
        return normal(math.hypot(alpha, sigma) if preserving else sigma)
