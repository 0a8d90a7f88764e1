"""Prepare a batch, as every backend does: the rows, the conditioner's table, and the sizes.

The size of every value in a graph is known before anything runs it, on any backend. So it is known
how much memory a batch takes, and that the outputs fit the arrays that the loop binds to them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Final

import numpy as np
from numpy.typing import NDArray

from difftool.bundle import Bundle
from difftool.diffusion.columns import Column
from difftool.diffusion.features import Feature
from difftool.diffusion.labels import Labels, Rows, lay_out_rows
from difftool.diffusion.program import Program
from difftool.errors import ArtefactError, ResourceError, UsageError
from difftool.preflight import OnnxFile
from difftool.runtime.backends.conditioner import Conditioner, Function

Floats = NDArray[np.float32]
Shape = tuple[int, ...]

_KEPT: Final = 64  # sizes that were found to be right are not inferred again
_TABLES: Final = 2  # conditioner's tables that are kept; each may be of many megabytes


@dataclass(frozen=True)
class Prepared:
    """The beginning of a batch of N samples: rows, cond_table [U, C], and the shape [N, *S]."""

    rows: Rows
    cond_table: Floats
    shape: Shape

    @property
    def slots(self) -> int:
        """Return K, how many entries of history the rows use."""
        return int(self.rows.table.shape[1] - Column.HISTORY)


class Preparation:
    """Prepares batches of a bundle, whose step graph is `step`.

    `step` is None if the backend runs something compiled from the graph, and so must check sizes
    itself. `load` makes a function of the conditioner's file, by default on ONNX Runtime.
    """

    def __init__(
        self,
        bundle: Bundle,
        step: OnnxFile | None,
        load: Callable[[OnnxFile], Function] | None = None,
    ) -> None:
        self.features = bundle.features
        self.shape: Shape = bundle.spec.shape  # [*S]
        self._spec = bundle.spec
        self._conditioner = Conditioner(bundle, load)
        self._tables: tuple[tuple[tuple[bytes, bytes], Floats], ...] = ()  # the newest is the last
        self._require_fit = (
            None if step is None else lru_cache(_KEPT)(partial(_require_fit, step, bundle))
        )

    def __call__(self, program: Program, size: int, labels: Labels | None) -> Prepared:
        """Prepare `size` samples of a program; the conditioner runs here, once for many batches.

        Raises:
            UsageError: the model lacks the labels, or the step graph what the program asks for.
            ArtefactError: the bundle's graphs do not fit each other, or take too much memory.
            ResourceError: fewer samples at a time would not take too much memory.
        """
        require_features(self.features, program, labels)
        rows = lay_out_rows(program, self._spec, size, labels)
        table = self._cond_table(rows)
        self.require_fit(size, program.history, rows.table.shape, table.shape)
        return Prepared(rows, table, (size, *self._spec.shape))

    def _cond_table(self, rows: Rows) -> Floats:
        """Return the table of the last programs and labels, the same array, or compute another."""
        key = rows.conds.tobytes(), b"" if rows.labels is None else rows.labels.tobytes()
        before = self._tables  # other threads replace it whole
        for known, table in before:
            if known == key:
                return table
        table = self._conditioner.table(rows)
        self._tables = (*before[1 - _TABLES :], (key, table))
        return table

    def require_fit(self, size: int, slots: int, table: Shape, cond_table: Shape) -> None:
        """Refuse sizes that a step cannot run with, as `__call__` does."""
        if self._require_fit is not None:
            self._require_fit(size, slots, table, cond_table)


def _require_fit(
    step: OnnxFile, bundle: Bundle, size: int, slots: int, table: Shape, cond_table: Shape
) -> None:
    """Refuse sizes with which a step takes too much memory, or gives outputs of other sizes."""
    sample, limit = (size, *bundle.spec.shape), bundle.limits.memory_bytes
    state = {"x": sample, "history": (slots, *sample), "row": (size,)}
    fixed = dict.fromkeys(("noise", "known", "mask"), sample)
    try:
        found = step.sizes({**state, **fixed, "table": table, "cond_table": cond_table}, limit)
    except ArtefactError as error:
        if error.code != "graph-memory" or size == 1:
            raise
        # If one sample takes too much as well, the bundle is to blame, and that is the error.
        _require_fit(step, bundle, 1, slots, table, cond_table)
        raise ResourceError(
            f"a batch of {size} takes more than {limit} bytes of memory",
            f"try `max_batch={size // 2}`, or raise the limit: `limits`",
        ) from error
    outputs = {**{f"{name}_next": shape for name, shape in state.items()}, "denoised": sample}
    for name, shape in outputs.items():
        if found[name] != shape:
            raise step.wrong(name, found[name])


def require_features(features: frozenset[Feature], program: Program, labels: Labels | None) -> None:
    """Raise UsageError if a program or its guidance needs a feature that a step graph lacks."""
    guided = labels is not None and labels.guidance_scale != 1
    needed = {Feature.NORMS: program.adaptive, Feature.GUIDANCE: guided}
    for feature, asked in needed.items():
        if asked and feature not in features:
            raise UsageError(
                f"this bundle's step graph has no {feature}",
                f"export it again: `features={feature}`",
            )
