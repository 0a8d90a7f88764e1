"""A node with all that is known of its inputs, for the rules of sizes to ask."""

from collections.abc import Sequence
from typing import Final, TypeVar

from difftool.errors import ArtefactError
from difftool.preflight.parts import AGAIN, Node, Tensor
from difftool.preflight.shapes.sized import RANGES, Numbers, Shape, Sized

T = TypeVar("T")

SHAPE: Final = "graph-shape"
OPERATOR: Final = "graph-operator"
MEMORY: Final = "graph-memory"

# Most characters of a name, and of a sentence about it, in a message; both come from the file.
_LONGEST: Final = 60
_LONGEST_LINE: Final = 240
_UNKNOWN: Final = "its sizes depend on its data"

# The type and sizes of each output, which a rule returns.
Made = list[tuple[int, Shape]]


def refused(node: Node, what: str, code: str = SHAPE, hint: str = AGAIN) -> ArtefactError:
    """Return the error that refuses a node. Its names may be anything, so they are cut."""
    name = node.name or next(iter(node.outputs), "")
    kind = node.operator if node.operator.isidentifier() else repr(node.operator)
    message = f"{kind[:_LONGEST]} {name[:_LONGEST]!r}: {what[:_LONGEST_LINE]}"
    return ArtefactError(message, hint, code=code)


class Operation:
    """A node, its inputs (None if one is left out), and the opset that defines its operator."""

    __slots__ = ("inputs", "node", "opset")

    def __init__(self, node: Node, inputs: Sequence[Sized | None], opset: int) -> None:
        self.node = node
        self.inputs = inputs
        self.opset = opset

    def refused(self, what: str, code: str = SHAPE) -> ArtefactError:
        """Return the error that refuses this node."""
        return refused(self.node, what, code)

    def require(self, fits: bool, what: str) -> None:
        """Raise ArtefactError, with the sizes of the inputs, unless they fit."""
        if not fits:
            shapes = ", ".join(str(x.shape)[:_LONGEST] for x in self.inputs[:4] if x is not None)
            raise self.refused(f"{what}; its inputs are {shapes}")

    def input(self, index: int) -> Sized:
        """Return an input that must be there."""
        found = self.optional(index)
        if found is None:
            raise self.refused(f"lacks its input {index}")
        return found

    def optional(self, index: int) -> Sized | None:
        """Return an input that may be left out."""
        return self.inputs[index] if index < len(self.inputs) else None

    def all_inputs(self) -> list[Sized]:
        """Return the inputs of an operator that takes any number of them, but leaves none out."""
        found = [value for value in self.inputs if value is not None]
        if not found or len(found) < len(self.inputs):
            raise self.refused("lacks an input")
        return found

    def numbers(self, index: int) -> Numbers:
        """Return the numbers of an input, which must be known before the graph runs."""
        found = self.input(index).numbers
        if found is None:
            raise self.refused(_UNKNOWN)
        return found

    def whole(self, index: int) -> list[int]:
        """Return the whole numbers of an input of at most one dimension."""
        value = self.input(index)
        if value.kind not in RANGES or len(value.shape) > 1:
            raise self.refused(f"its input {index} is not a list of whole numbers")
        return [int(number) for number in self.numbers(index).reshape(-1)]

    def one(self, index: int) -> int:
        """Return the only whole number of an input."""
        found = self.whole(index)
        if len(found) != 1:
            raise self.refused(f"its input {index} has {len(found)} numbers, not one")
        return found[0]

    def integer(self, name: str, default: int | None = None) -> int:
        """Return a whole-number attribute; without a default it must be there."""
        return self._attribute(name, int, "a whole number", default)

    def integers(self, name: str, default: Sequence[int] | None = None) -> list[int]:
        """Return an attribute that is a list; without a default it must be there."""
        usual = None if default is None else tuple(default)
        found = self._attribute(name, tuple, "a list", usual)
        if not all(isinstance(item, int) for item in found):
            raise self.refused(f"its attribute {name} holds something other than whole numbers")
        return list(found)

    def text(self, name: str, default: str | None = None) -> str:
        """Return an attribute that is a text; without a default it must be there."""
        return self._attribute(name, str, "a text", default)

    def _attribute(self, name: str, kind: type[T], what: str, default: T | None) -> T:
        found = self.node.attributes.get(name, default)
        if not isinstance(found, kind):
            raise self.refused(f"its attribute {name} is missing, or not {what}")
        return found

    def tensor(self, name: str) -> Tensor | None:
        """Return an attribute that is a tensor, or None."""
        found = self.node.attributes.get(name)
        if found is not None and not isinstance(found, Tensor):
            raise self.refused(f"its attribute {name} is not a tensor")
        return found

    def axis(self, axis: int, rank: int) -> int:
        """Count an axis from the front."""
        if not -rank <= axis < rank:
            raise self.refused(f"has no axis {axis}, only {rank}")
        return axis % rank

    def axes(self, axes: Sequence[int], rank: int) -> list[int]:
        """Count axes from the front, and refuse two that are the same."""
        found = [self.axis(axis, rank) for axis in axes]
        if len(set(found)) < len(found):
            raise self.refused("names an axis twice")
        return found

    def broadcast(self, *shapes: Shape) -> Shape:
        """Return the shape to which all are broadcast, as in numpy."""
        result = shapes[0]
        for shape in shapes[1:]:
            if shape != result:
                result = self._spread(result, shape)
        return result

    def require_spread(self, small: Shape, large: Shape, what: str) -> None:
        """Raise ArtefactError unless broadcasting `small` with `large` gives `large`.

        Runtimes broadcast as numpy does, so a larger bias would make a larger result.
        """
        if small != large and self._spread(small, large) != large:
            raise self.refused(f"its {what} {small} is larger than {large}")

    def _spread(self, first: Shape, second: Shape) -> Shape:
        if len(first) < len(second):
            first, second = second, first
        padded = (1,) * (len(first) - len(second)) + second
        if not all(a == b or 1 in (a, b) for a, b in zip(first, padded, strict=True)):
            raise self.refused(f"sizes {first} and {second} do not fit")
        return tuple(b if a == 1 else a for a, b in zip(first, padded, strict=True))
