"""The order of claims: priority, deadline, least attained service; and nobody starves."""

import math

import hypothesis.strategies as st
from hypothesis import given

from difftool.runtime.scheduling.policy import Claim, arrange, choose, order
from difftool.runtime.scheduling.slots import IDLE

CLAIMS = st.lists(
    st.builds(
        Claim,
        priority=st.integers(-1, 1),
        deadline=st.sampled_from([1.0, 2.0, math.inf]),
        attained=st.integers(0, 5),
        waited=st.integers(0, 6),
        place=st.none() | st.integers(0, 3),
    ),
    max_size=12,
)
AGEING = 4


def test_what_decides_in_which_order() -> None:
    claims = [
        Claim(attained=5),
        Claim(attained=2),
        Claim(attained=9, waited=AGEING),
        Claim(attained=9, deadline=1.0),
        Claim(attained=9, priority=1),
        Claim(attained=2),
        Claim(attained=9, waited=AGEING + 1),
    ]
    assert order(claims, AGEING) == [4, 6, 2, 3, 1, 5, 0]


@given(CLAIMS, st.integers(1, 6))
def test_the_chosen_come_before_the_others(claims: list[Claim], most: int) -> None:
    chosen = choose(claims, most, AGEING)
    assert chosen == sorted(set(chosen))
    places = [claims[i].place for i in chosen if claims[i].place is not None]
    assert len(places) == len(set(places))
    rank = {index: i for i, index in enumerate(order(claims, AGEING))}
    for index in set(range(len(claims))) - set(chosen):
        earlier = [i for i in chosen if rank[i] < rank[index]]
        blocked = claims[index].place in [claims[i].place for i in earlier]
        assert len(earlier) == most or (claims[index].place is not None and blocked)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=8), st.integers(1, 4))
def test_nobody_waits_for_ever(priorities: list[int], most: int) -> None:
    """New requests of no service come at every step; the old ones of the top priority get on."""
    top = max(priorities)
    waited = [0] * len(priorities)
    bound = AGEING + math.ceil(len(priorities) / most) + 1
    for _ in range(5 * bound):
        old = [
            Claim(priority, attained=100, waited=steps)
            for priority, steps in zip(priorities, waited, strict=True)
        ]
        chosen = choose([*old, *[Claim(top)] * most], most, AGEING)
        waited = [0 if i in chosen else steps + 1 for i, steps in enumerate(waited)]
        for priority, steps in zip(priorities, waited, strict=True):
            assert priority < top or steps <= bound


SIZES = (1, 2, 4, 6)


@given(st.lists(st.none() | st.integers(0, 5), min_size=1, max_size=6))
def test_a_batch_holds_every_slot_once_and_fixed_ones_where_they_must_be(
    places: list[int | None],
) -> None:
    fixed = [place for place in places if place is not None]
    if len(fixed) != len(set(fixed)):
        return
    slots = list(range(10, 10 + len(places)))
    found = arrange(slots, places, SIZES)
    assert len(found) in SIZES
    assert sorted(slot for slot in found if slot != IDLE) == slots
    assert all(found[place] == slot for slot, place in zip(slots, places, strict=True) if place)
    if not fixed:
        assert len(found) == min(size for size in SIZES if size >= len(slots))
        assert found[: len(slots)] == slots
    else:
        assert len(found) == SIZES[-1]
