"""Judged ONNX files: the bytes for a runtime, and the sizes of the graph's outputs."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from difftool.errors import ArtefactError
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
            return dict(infer(self.graph, taken, limit=limit).outputs)
        except ArtefactError as error:
            message = f"{self.path}: {error.message}"
            raise ArtefactError(message, error.hint, code=error.code) from error

    def wrong(self, output: str, found: Shape) -> ArtefactError:
        """Return the error for an output that has other sizes than the loop binds to it."""
        return ArtefactError(
            f"{self.path} gives an output {output} of the sizes {found}",
            AGAIN,
            code="graph-interface",
        )
