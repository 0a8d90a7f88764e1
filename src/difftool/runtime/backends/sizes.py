"""The sizes of what a graph makes, known before it runs; the errors name the file."""

from difftool.bundle import OnnxFile
from difftool.errors import ArtefactError
from difftool.preflight.shapes import infer

Shape = tuple[int, ...]
Shapes = dict[str, Shape]


def sizes_of(file: OnnxFile, inputs: Shapes, limit: int) -> Shapes:
    """The sizes of a graph's outputs for inputs of these sizes, of which it takes those it has.

    ArtefactError if it takes more than `limit` bytes of memory, or its sizes do not fit.
    """
    taken = {name: shape for name, shape in inputs.items() if name in file.graph.inputs}
    try:
        return dict(infer(file.graph, taken, limit=limit).outputs)
    except ArtefactError as error:
        message = f"{file.path}: {error.message}"
        raise ArtefactError(message, error.hint, code=error.code) from error


def wrong_sizes(file: OnnxFile, name: str, found: Shape) -> ArtefactError:
    """The error of a graph that gives an output of other sizes than the loop binds to it."""
    return ArtefactError(
        f"{file.path} gives an output {name} of the sizes {found}",
        "export it again, with this difftool",
        code="graph-interface",
    )
