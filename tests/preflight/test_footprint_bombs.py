"""B6: how much memory a graph takes is known before anything runs it."""

import tracemalloc
from typing import Final

import pytest

from difftool.errors import ArtefactError
from difftool.preflight.shapes import infer, table, workspace
from difftool.preflight.shapes.operation import Made, Operation
from tests.oracles.single import parse_graph
from tests.preflight.bombs import BOMBS, LIMIT, Bomb
from tests.reliability.criteria import Cases

LARGEST: Final = 4 << 10  # bytes of a bomb
HALF: Final = 10  # ONNX's number of float16, in which no sizes are computed
MOST: Final = 4 << 20  # bytes that may be allocated while a graph is judged


def check(bomb: Bomb) -> None:
    """AssertionError unless a bomb is refused, for its memory and without any."""
    assert len(bomb.model().SerializeToString()) < LARGEST
    error = refusal(bomb)
    assert error is not None, "it is let through"
    assert error.code == "graph-memory", error
    assert str(LIMIT) in error.message
    assert "\n" not in error.message
    assert "`limits`" in error.hint


def refusal(bomb: Bomb) -> ArtefactError | None:
    """Return how a bomb is refused, if it is."""
    graph = parse_graph(bomb.model())
    tracemalloc.start()
    try:
        infer(graph, bomb.inputs, limit=LIMIT)
    except ArtefactError as error:
        return error
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < MOST, "it was made"
    return None


@pytest.mark.criterion("B6")
def test_bombs_are_refused(cases: Cases) -> None:
    cases.run(check, BOMBS)


def blind(op: Operation) -> Made:
    """A rule that sees no sizes."""
    return [(HALF, ())] * len(op.node.outputs)


@pytest.mark.seeded("B6")
@pytest.mark.parametrize("bomb", BOMBS, ids=repr)
def test_a_rule_that_is_taken_out_is_seen(bomb: Bomb, monkeypatch: pytest.MonkeyPatch) -> None:
    if bomb.space:
        monkeypatch.delitem(workspace.WORKSPACE, bomb.guard)
    else:
        monkeypatch.setitem(table.RULES, bomb.guard, blind)
    with pytest.raises(AssertionError, match="let through"):
        check(bomb)
