"""Taking turns, and comparing round by round."""

import pytest
from _timing import differences, interleave, ratios


def test_sides_take_turns_in_alternating_order_after_a_round_that_is_not_counted() -> None:
    calls: list[str] = []
    sides = {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}
    seconds = interleave(sides, rounds=2)
    assert "".join(calls) == "abbaab"
    assert {name: len(values) for name, values in seconds.items()} == {"a": 2, "b": 2}
    assert all(value >= 0 for values in seconds.values() for value in values)


def test_rounds_are_compared_with_their_own_round() -> None:
    assert ratios([2, 30], [1, 10]) == [2, 3]
    assert differences([2, 30], [1, 10]) == [1, 20]
    with pytest.raises(ValueError, match="shorter"):
        ratios([1, 2], [1])
