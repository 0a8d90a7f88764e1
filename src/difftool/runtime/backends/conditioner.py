"""A bundle's conditioner: what of the network depends on the noise level and the label alone.

It runs once for a program, outside the loop, on the CPU, whatever runs the rows.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from difftool.bundle import CONDITIONER, Bundle, OnnxFile
from difftool.diffusion.labels import Rows
from difftool.runtime.backends.sessions import cpu_session, run_error

Floats = NDArray[np.float32]
Function = Callable[[Mapping[str, NDArray[Any]]], Floats]


class Conditioner:
    """Runs `conditioner.onnx`, where a bundle has one; `load` makes a function of its file."""

    def __init__(self, bundle: Bundle, load: Callable[[OnnxFile], Function] | None = None) -> None:
        has_one = CONDITIONER in bundle.manifest.files
        load = load or _on_onnxruntime
        self._function = load(bundle.graph(CONDITIONER)) if has_one else None

    def table(self, rows: Rows) -> Floats:
        """The rows' cond_table, float32 [U, C]; C is 0 where the network takes nothing."""
        if self._function is None:
            return np.zeros((len(rows.conds), 0), np.float32)
        conds, labels = rows.conds.astype(np.float32), rows.labels
        if labels is None:
            return self._function({"cond": conds})
        # A label at a time: products over more rows may be rounded otherwise, and a sample would
        # depend on the labels of those beside it.
        ends = np.flatnonzero(np.diff(labels)) + 1
        parts = zip(np.split(conds, ends), np.split(labels, ends), strict=True)
        return np.concatenate([self._function({"cond": c, "label": n}) for c, n in parts])


def _on_onnxruntime(file: OnnxFile) -> Function:
    session = cpu_session(file.data, file.path, 1)

    def function(inputs: Mapping[str, NDArray[Any]]) -> Floats:
        try:
            table: Floats = session.run(None, dict(inputs))[0]
        except Exception as error:  # ONNX Runtime's errors share no base of their own
            raise run_error(error, len(inputs["cond"])) from error
        return table

    return function
