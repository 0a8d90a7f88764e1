"""A turn in which nobody comes or goes does little, however many samples there are."""

import sys
from types import FrameType

from difftool.diffusion.samplers import ddim
from difftool.runtime.request import Request
from tests.runtime.scheduling.fake import LONG, SPEC, Program, finish, scheduler

PLAIN = ddim(SPEC, steps=20)


def calls_of_a_turn(n: int, program: Program = PLAIN) -> list[str]:
    """Return the functions that the tenth turn of a request of `n` samples calls."""
    running, slots = scheduler(most=8)
    slots.advance = lambda places: None  # type: ignore[method-assign]
    running.submit(Request(program, n=n), program)
    for _ in range(9):
        running.turn()
    calls: list[str] = []

    def seen(frame: FrameType, event: str, _: object) -> None:
        if event == "call":
            calls.append(frame.f_code.co_name)

    before = sys.getprofile()
    sys.setprofile(seen)
    try:
        running.turn()
    finally:
        sys.setprofile(before)
    finish(running)
    return calls


def test_the_same_samples_are_chosen_once() -> None:
    assert not {"choose", "arrange", "order"} & set(calls_of_a_turn(8))


def test_a_turn_does_as_much_for_eight_samples_as_for_one() -> None:
    eight = calls_of_a_turn(8)
    assert eight == calls_of_a_turn(1)
    assert len(eight) < 20


def test_the_last_turn_still_hands_out() -> None:
    assert "_finish" in calls_of_a_turn(1, ddim(SPEC, steps=10))
    assert "_finish" not in calls_of_a_turn(1, LONG)
