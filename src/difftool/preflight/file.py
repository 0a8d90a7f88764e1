"""A judged ONNX file: the bytes that a runtime gets, and what its graph makes of inputs."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from difftool.errors import ArtefactError
from difftool.preflight.parts import Graph
from difftool.preflight.shapes import infer

Shape = tuple[int, ...]


@dataclass(frozen=True)
class OnnxFile:
    """An ONNX file that was judged.

    `data` are the bytes that were judged, and what a runtime is to be given: the file itself may
    be another by then.
    """

    path: Path
    data: bytes
    graph: Graph

    def sizes(self, inputs: Mapping[str, Shape], limit: int) -> dict[str, Shape]:
        """The sizes of the outputs for inputs of these sizes, of which it takes those it has.

        Nothing is run. ArtefactError if it takes more than `limit` bytes of memory, if its sizes do
        not fit each other, or if they cannot be known.
        """
        taken = {name: shape for name, shape in inputs.items() if name in self.graph.inputs}
        try:
            return dict(infer(self.graph, taken, limit=limit).outputs)
        except ArtefactError as error:
            message = f"{self.path}: {error.message}"
            raise ArtefactError(message, error.hint, code=error.code) from error

    def wrong(self, output: str, found: Shape) -> ArtefactError:
        """The error of an output that has other sizes than the loop binds to it."""
        return ArtefactError(
            f"{self.path} gives an output {output} of the sizes {found}",
            "export it again, with this difftool",
            code="graph-interface",
        )
