"""Run a step graph node by node in numpy, with ONNX's reference evaluator.

It is hundreds of times slower than a runtime, and a second opinion on any of them.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

from difftool.bundle import Bundle
from difftool.diffusion.labels import Labels
from difftool.diffusion.program import Program
from difftool.preflight import OnnxFile
from difftool.runtime.backends.conditioner import Function
from difftool.runtime.backends.host import Arrays, HostBatch
from difftool.runtime.backends.prepare import Preparation


class NumpyGraph:
    """A backend that runs the conditioner, and the step graph in a precision."""

    name = "numpy"

    def __init__(self, bundle: Bundle, precision: str) -> None:
        step = bundle.step(precision)
        self._prepare = Preparation(bundle, step, _function)
        self.features = self._prepare.features
        self._step = _evaluator(step)

    def batch(self, program: Program, size: int, labels: Labels | None = None) -> HostBatch:
        """Return room for `size` samples of a program."""
        return HostBatch(
            self._bind, {*self._step.input_names}, self._prepare(program, size, labels)
        )

    def _bind(self, inputs: Arrays, outputs: Arrays) -> Callable[[], None]:
        def run() -> None:
            for name, value in zip(outputs, _run(self._step, [*outputs], inputs), strict=True):
                outputs[name][...] = value

        return run


def _evaluator(file: OnnxFile) -> ReferenceEvaluator:
    return ReferenceEvaluator(onnx.load_from_string(file.data))


def _function(file: OnnxFile) -> Function:
    graph = _evaluator(file)
    return lambda inputs: np.asarray(_run(graph, None, inputs)[0], np.float32)


def _run(graph: ReferenceEvaluator, names: list[str] | None, inputs: Arrays) -> list[Any]:
    with np.errstate(over="ignore"):  # the exponential in a sigmoid may overflow
        return list(graph.run(names, dict(inputs)))
