"""Class labels: each has a block of rows, so that one table serves samples of all classes."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from difftool.diffusion.columns import Column
from difftool.diffusion.noise import SAMPLING_LABEL, words
from difftool.diffusion.program import Program
from difftool.diffusion.spec import ModelSpec
from difftool.errors import UsageError, quoted

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

_DIGITS: Final = 10  # of no index


@dataclass(frozen=True)
class Labels:
    """The class label of each sample, int64 [N]; with `guidance_scale` 1 there is no guidance.

    The label `spec.classes` is the null label, "no class".
    """

    of: Indices
    guidance_scale: float = 1.0


@dataclass(frozen=True)
class Rows:
    """The rows that a backend runs: one block of a program's R rows for each of B labels.

    - `table`: float64 [B * R, columns], or float32 for a step graph
    - `conds`, `labels`: float64 and int64 [U], the conditioner's inputs; `labels` is None for a
      model without classes
    - `first`: int64 [N], the row at which each sample's block begins
    """

    table: NDArray[np.floating[Any]]
    conds: Array
    labels: Indices | None
    first: Indices


def lay_out_rows(program: Program, spec: ModelSpec, size: int, labels: Labels | None) -> Rows:
    """Return the rows for `size` samples; without `labels` each sample has the null label.

    Raises:
        UsageError: the model has no such label, or guidance needs a null label and it has none.
    """
    if not spec.classes:
        if labels is not None:
            raise UsageError("this model has no class labels", "leave labels and guidance out")
        return Rows(program.table, program.conds, None, np.zeros(size, np.int64))
    null = spec.classes
    labels = labels or Labels(np.full(size, null))
    guided = labels.guidance_scale != 1
    check_labels(spec, labels)
    distinct, block = np.unique(labels.of, return_inverse=True)
    # Guidance also runs the network on the null label, so that needs conditioning rows as well.
    known = np.append(distinct, null) if guided and null not in distinct else distinct
    width = len(program.conds)
    tables = []
    for index in range(len(distinct)):
        table = program.table.copy()
        table[:, Column.COND] += index * width
        if guided:
            table[:, Column.NULL_COND] += int(np.searchsorted(known, null)) * width
            table[:, Column.GUIDANCE] = labels.guidance_scale
        else:
            table[:, Column.NULL_COND] = table[:, Column.COND]
        tables.append(table)
    return Rows(
        np.concatenate(tables),
        np.tile(program.conds, len(known)),
        np.repeat(known, width),
        block * len(program),
    )


def drawn_labels(seed: int, samples: Indices, classes: int) -> Indices:
    """Return a class for each of the sample indices [N], all alike likely; int64 [N].

    It is the first word of a noise stream of its own, modulo the classes. So it is a function of
    the seed and the index, and samples without a label come from the whole distribution.
    """
    word = words(seed, SAMPLING_LABEL, 0, samples, 1)[:, 0]
    return (word % np.uint32(classes)).astype(np.int64)


def class_index(spec: ModelSpec, label: str) -> int:
    """Return the index of a class by its name; "none" is the null label.

    A number is an index, unless the names of the model's classes are numbers themselves.

    Raises:
        UsageError: the model has no such class.
    """
    if not spec.classes:
        raise UsageError("this model has no class labels", "leave labels and guidance out")
    if label in spec.class_names:
        return spec.class_names.index(label)
    if label == "none":
        return spec.classes
    numbered = any(name.isdecimal() for name in spec.class_names)
    if not numbered and label.isdecimal() and len(label) < _DIGITS:
        return int(label)
    known = ", ".join(spec.class_names) or f"0 to {spec.classes - 1}; they have no names"
    raise UsageError(f"no class {quoted(label)} in a model of {spec.classes}", f"one of: {known}")


def class_indices(spec: ModelSpec, labels: Iterable[str | int]) -> Indices:
    """Return the indices of classes that are given by name or index; int64 [N]."""
    found = [class_index(spec, label) if isinstance(label, str) else label for label in labels]
    return np.array(found, np.int64)


def check_labels(spec: ModelSpec, labels: Labels) -> None:
    """Raise UsageError if a model with classes has no such label, or no null label for guidance."""
    if not np.isfinite(labels.guidance_scale):
        raise UsageError(
            f"guidance_scale {labels.guidance_scale} is not finite", "1 is none, 3 is much"
        )
    last = spec.classes if spec.null_label else spec.classes - 1
    for label in labels.of:
        if label == spec.classes and not spec.null_label:
            raise UsageError(
                "this model was trained with labels only", f"give labels from 0 to {last}"
            )
        if not 0 <= label <= last:
            raise UsageError(
                f"no class {label} in a model of {spec.classes}", f"labels are 0 to {last}"
            )
    if labels.guidance_scale != 1 and not spec.null_label:
        raise UsageError(
            "guidance needs the null label, which this model never learned",
            "train with label_dropout, or use guidance_scale 1",
        )
