"""Three more ways to spoil a bundle: by what its graphs hide, what they say, and what they take."""

import random
from pathlib import Path
from typing import Final

import numpy as np
import onnx
from onnx import helper, numpy_helper

from difftool.preflight.wire import BYTES
from tests.oracles.wire_mutations import WIDE, Part, taken_apart, varint
from tests.reliability.mutations import GRAPHS, Mutation, edit_graph, make_digests
from tests.runtime.test_prepare import LIES

_TRUE_OF_ONE: Final = ("x of the first", "row of one")  # sample, which is what is drawn
_HUGE: Final = [1 << 20, 1 << 20]
# An operator's inputs, of which it makes a trillion numbers.
_BOMBS: Final = {
    "ConstantOfShape": (_HUGE,),
    "Expand": (1, _HUGE),
    "Tile": ([[1]], _HUGE),
    "Range": (0, 1 << 40, 1),
}


def hidden(bundle: Path, rng: random.Random, rehashed: bool) -> None:
    """A field that some parsers see and others skip, or one that is written in a longer form."""
    path = bundle / rng.choice(GRAPHS)
    file = taken_apart(path.read_bytes())
    parts, index, _ = rng.choice(list(file.all()))
    part = parts[index]
    way = rng.randrange(4)
    if way == 0:
        wide = rng.choice(WIDE)
        parts.insert(
            index, Part(1, BYTES, rng.randbytes(4), tag=lambda key: varint(key | wide << 3))
        )
    elif way == 1:
        parts.insert(index, Part(rng.randrange(100, 20_000), BYTES, rng.randbytes(4)))
    elif way == 2:
        number = rng.randrange(1, 30)
        part.before, part.after = varint(number << 3 | 3), varint(number << 3 | 4)
    else:
        longer = rng.choice((1, 2, 4))
        part.tag = lambda key: varint(key, longer)
    path.write_bytes(file.written())
    make_digests(bundle, rehashed)


def lie(bundle: Path, rng: random.Random, rehashed: bool) -> None:
    """An output is of other sizes than the graph says."""
    name, change = LIES[rng.choice([lie for lie in LIES if lie not in _TRUE_OF_ONE])]
    edit_graph(bundle, name, rehashed, lambda model: change(model.graph))


def bomb(bundle: Path, rng: random.Random, rehashed: bool) -> None:
    """A few bytes of a graph make terabytes when a runtime loads it, or when it runs."""
    operator = rng.choice(list(_BOMBS))

    def change(model: onnx.ModelProto) -> None:
        inputs = []
        for value in _BOMBS[operator]:
            inputs.append(f"bomb_{len(inputs)}")
            array = np.array(value, np.int64)
            model.graph.initializer.append(numpy_helper.from_array(array, inputs[-1]))
        model.graph.node.append(helper.make_node(operator, inputs, ["bomb"]))

    edit_graph(bundle, rng.choice(GRAPHS), rehashed, change)


GRAPH_CLASSES: Final[dict[str, Mutation]] = {
    function.__name__: function for function in (hidden, lie, bomb)
}
