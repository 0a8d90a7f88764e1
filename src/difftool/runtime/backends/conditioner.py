"""A bundle's conditioner: the part of a network that depends on noise level and label alone.

It runs once for a program, outside the loop, and on the CPU, whatever runs the rows.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from difftool.bundle import CONDITIONER, Bundle
from difftool.diffusion.labels import Rows
from difftool.preflight import OnnxFile
from difftool.runtime.backends.sessions import cpu_session, run_error

Floats = NDArray[np.float32]
Function = Callable[[Mapping[str, NDArray[Any]]], Floats]


class Conditioner:
    """The graph `conditioner.onnx`, if a bundle has one; `load` makes a function of its file."""

    def __init__(self, bundle: Bundle, load: Callable[[OnnxFile], Function] | None = None) -> None:
        has_one = CONDITIONER in bundle.manifest.files
        self._limit = bundle.limits.memory_bytes
        self._file = bundle.graph(CONDITIONER) if has_one else None
        self._function = (load or _on_onnxruntime)(self._file) if self._file else None

    def table(self, rows: Rows) -> Floats:
        """Compute the rows' cond_table, float32 [U, C]; C is 0 if the network takes nothing.

        ArtefactError if the graph gives another number of rows, or takes too much memory.
        """
        conds, labels = rows.conds.astype(np.float32), rows.labels
        if labels is None:
            return self._run({"cond": conds})
        # One label at a time: a product of more rows may round differently, and a sample would then
        # depend on the labels of its neighbours.
        ends = np.flatnonzero(np.diff(labels)) + 1
        parts = zip(np.split(conds, ends), np.split(labels, ends), strict=True)
        return np.concatenate([self._run({"cond": c, "label": n}) for c, n in parts])

    def _run(self, inputs: Mapping[str, NDArray[Any]]) -> Floats:
        count = len(inputs["cond"])
        if self._file is None or self._function is None:
            return np.zeros((count, 0), np.float32)
        sizes = {name: array.shape for name, array in inputs.items()}
        known = self._file.sizes(sizes, self._limit)["cond_table"]
        if known[:1] != (count,) or len(known) != 2:
            raise self._file.wrong("cond_table", known)
        table = self._function(inputs)
        if table.shape != known or table.dtype != np.float32:
            raise self._file.wrong("cond_table", table.shape)
        return table


def _on_onnxruntime(file: OnnxFile) -> Function:
    session = cpu_session(file.data, file.path, 1)

    def function(inputs: Mapping[str, NDArray[Any]]) -> Floats:
        try:
            table: Floats = session.run(None, dict(inputs))[0]
        except Exception as error:  # ONNX Runtime's errors share no base of their own
            raise run_error(error, len(inputs["cond"])) from error
        return table

    return function
