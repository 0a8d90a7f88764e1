"""Judged ONNX files: the bytes for a runtime, and the sizes of the graph's outputs."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from difftool.errors import ArtefactError
from difftool.preflight.interface import GUIDED
from difftool.preflight.parts import AGAIN, Graph
from difftool.preflight.shapes import infer

Shape = tuple[int, ...]


@dataclass(frozen=True)
class OnnxFile:
    """An ONNX file that was judged.

    `data` holds the bytes that were judged. Give a runtime these, and not the path: the file may
    have changed since.
    """

    path: Path
    data: bytes
    graph: Graph

    def sizes(self, inputs: Mapping[str, Shape], limit: int) -> dict[str, Shape]:
        """Return the sizes of the outputs for inputs of these sizes, without running anything.

        Inputs that the graph does not have are left out. ArtefactError if the graph takes more than
        `limit` bytes of memory, or if its sizes do not fit each other or cannot be known.
        """
        taken = {name: shape for name, shape in inputs.items() if name in self.graph.inputs}
        try:
            found = [infer(graph, taken, limit=limit).outputs for graph in _as_fed(self.graph)]
        except ArtefactError as error:
            message = f"{self.path}: {error.message}"
            raise ArtefactError(message, error.hint, code=error.code) from error
        for name, shape in found[0].items():
            if any(other[name] != shape for other in found):
                raise self.wrong(name, shape)
        return dict(found[0])

    def wrong(self, output: str, found: Shape) -> ArtefactError:
        """Return the error for an output that has other sizes than the loop binds to it."""
        return ArtefactError(
            f"{self.path} gives an output {output} of the sizes {found}",
            AGAIN,
            code="graph-interface",
        )


def _as_fed(graph: Graph) -> list[Graph]:
    """Return the graph with each number that `guided` may have, if it has that input."""
    one = graph.constants.get(GUIDED) if GUIDED in graph.inputs else None
    if one is None:
        return [graph]
    fed = [replace(one, numbers=np.array([number])) for number in (1, 0)]
    return [replace(graph, constants={**graph.constants, GUIDED: given}) for given in fed]
