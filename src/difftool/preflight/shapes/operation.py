"""A node with all that is known of its inputs: what the rules of shapes ask."""

from collections.abc import Sequence
from typing import Final

from difftool.errors import ArtefactError
from difftool.preflight.parts import Node, Tensor
from difftool.preflight.shapes.sized import RANGES, Numbers, Shape, Sized

SHAPE: Final = "graph-shape"
OPERATOR: Final = "graph-operator"
MEMORY: Final = "graph-memory"

_LONGEST: Final = 60  # characters of a name in a message
_LONGEST_LINE: Final = 240  # of what is said of it
_AGAIN: Final = "export it again, with this difftool"
_UNKNOWN: Final = "its sizes depend on its data"

# What a rule says of each output: its type and sizes.
Made = list[tuple[int, Shape]]


def title(node: Node) -> str:
    """What an error calls a node; the names are anybody's, so they are cut and quoted."""
    name = node.name or next(iter(node.outputs), "")
    kind = node.operator if node.operator.isidentifier() else repr(node.operator)
    return f"{kind[:_LONGEST]} {name[:_LONGEST]!r}"


def refused(node: Node, what: str, code: str = SHAPE, hint: str = _AGAIN) -> ArtefactError:
    """The error that a node is refused with."""
    return ArtefactError(f"{title(node)}: {what[:_LONGEST_LINE]}", hint, code=code)


class Operation:
    """A node, its inputs (None if one is left out), and the opset that says what it means."""

    __slots__ = ("inputs", "node", "opset")

    def __init__(self, node: Node, inputs: Sequence[Sized | None], opset: int) -> None:
        self.node = node
        self.inputs = inputs
        self.opset = opset

    def refused(self, what: str, code: str = SHAPE) -> ArtefactError:
        """The error that the node is refused with."""
        return refused(self.node, what, code)

    def require(self, fits: bool, what: str) -> None:
        """ArtefactError if sizes do not fit each other."""
        if not fits:
            shapes = ", ".join(str(x.shape)[:_LONGEST] for x in self.inputs[:4] if x is not None)
            raise self.refused(f"{what}; its inputs are {shapes}")

    def input(self, index: int) -> Sized:
        """An input that must be there."""
        found = self.optional(index)
        if found is None:
            raise self.refused(f"lacks its input {index}")
        return found

    def optional(self, index: int) -> Sized | None:
        """An input that may be left out."""
        return self.inputs[index] if index < len(self.inputs) else None

    def all_inputs(self) -> list[Sized]:
        """The inputs of an operator that takes any number of them, of which none is left out."""
        found = [value for value in self.inputs if value is not None]
        if not found or len(found) < len(self.inputs):
            raise self.refused("lacks an input")
        return found

    def numbers(self, index: int) -> Numbers:
        """The numbers of an input; refused if they are not known before the graph runs."""
        found = self.input(index).numbers
        if found is None:
            raise self.refused(_UNKNOWN)
        return found

    def whole(self, index: int) -> list[int]:
        """The whole numbers of an input of at most one dimension."""
        value = self.input(index)
        if value.kind not in RANGES or len(value.shape) > 1:
            raise self.refused(f"its input {index} is no list of whole numbers")
        return [int(number) for number in self.numbers(index).reshape(-1)]

    def one(self, index: int) -> int:
        """The only whole number of an input."""
        found = self.whole(index)
        if len(found) != 1:
            raise self.refused(f"its input {index} has {len(found)} numbers, not one")
        return found[0]

    def integer(self, name: str, default: int | None = None) -> int:
        """An attribute; without a default it must be there."""
        found = self.node.attributes.get(name, default)
        if not isinstance(found, int):
            raise self.refused(f"its attribute {name} is missing, or no whole number")
        return found

    def integers(self, name: str, default: Sequence[int] | None = None) -> list[int]:
        """An attribute that is a list; without a default it must be there."""
        found = self.node.attributes.get(name)
        if found is None and default is not None:
            return list(default)
        if not isinstance(found, tuple):
            raise self.refused(f"its attribute {name} is missing, or no list")
        whole = [item for item in found if isinstance(item, int)]
        if len(whole) < len(found):
            raise self.refused(f"its attribute {name} holds what are no whole numbers")
        return whole

    def text(self, name: str, default: str | None = None) -> str:
        """An attribute that is a word; without a default it must be there."""
        found = self.node.attributes.get(name, default)
        if not isinstance(found, str):
            raise self.refused(f"its attribute {name} is missing, or no text")
        return found

    def tensor(self, name: str) -> Tensor | None:
        """An attribute that is a tensor, if there is one."""
        found = self.node.attributes.get(name)
        if found is not None and not isinstance(found, Tensor):
            raise self.refused(f"its attribute {name} is no tensor")
        return found

    def axis(self, axis: int, rank: int) -> int:
        """An axis counted from the front."""
        if not -rank <= axis < rank:
            raise self.refused(f"has no axis {axis}, only {rank}")
        return axis % rank

    def axes(self, axes: Sequence[int], rank: int) -> list[int]:
        """Axes counted from the front, no two of them the same."""
        found = [self.axis(axis, rank) for axis in axes]
        if len(set(found)) < len(found):
            raise self.refused("names an axis twice")
        return found

    def broadcast(self, *shapes: Shape) -> Shape:
        """The shape that all are spread to, as numpy does."""
        result = shapes[0]
        for shape in shapes[1:]:
            if shape != result:
                result = self._spread(result, shape)
        return result

    def require_spread(self, small: Shape, large: Shape, what: str) -> None:
        """ArtefactError unless `small` is spread to `large`, and `large` stays what it is.

        Runtimes that add or multiply with numpy's rules would otherwise make more than the result.
        """
        if small != large and self._spread(small, large) != large:
            raise self.refused(f"its {what} {small} is larger than {large}")

    def _spread(self, first: Shape, second: Shape) -> Shape:
        if len(first) < len(second):
            first, second = second, first
        padded = (1,) * (len(first) - len(second)) + second
        for a, b in zip(first, padded, strict=True):
            if a != b and a != 1 and b != 1:
                raise self.refused(f"sizes {first} and {second} do not fit")
        return tuple(b if a == 1 else a for a, b in zip(first, padded, strict=True))
