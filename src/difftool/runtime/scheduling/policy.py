"""Choose the samples that run next, by pure functions of plain values."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from difftool.runtime.scheduling.slots import IDLE


@dataclass(frozen=True)
class Claim:
    """The claim of a sample, or of a request, to be next.

    - `priority`: more goes first, whatever the other fields are
    - `deadline`: the time by which it must be done; infinite while that is far away
    - `attained`: how many rows its request has been given, over all its samples
    - `waited`: for how many steps it has been left out
    - `place`: the only place in a batch where it may stand; None if it may stand anywhere
    """

    priority: int = 0
    deadline: float = math.inf
    attained: int = 0
    waited: int = 0
    place: int | None = None


def order(claims: Sequence[Claim], ageing: int) -> list[int]:
    """Return the claims' indices from the first to the last; equal ones stay in their order.

    Priority decides first, then the deadline, then the least attained service. So a short request
    does not wait for long ones, and nobody has to know how long a request is. Within a priority, a
    claim that has waited for `ageing` steps goes before all others, the longest wait first. So no
    claim waits for ever.
    """

    def key(index: int) -> tuple[int, int, float, int]:
        claim = claims[index]
        aged = claim.waited if claim.waited >= ageing else 0
        return -claim.priority, -aged, claim.deadline, claim.attained

    return sorted(range(len(claims)), key=key)


def choose(claims: Sequence[Claim], most: int, ageing: int) -> list[int]:
    """Return the indices, in ascending order, of at most `most` claims that run together.

    Of two that must stand at one place, the second waits.
    """
    return sorted(_chosen(claims, most, order(claims, ageing)))


def arrange(slots: Sequence[int], places: Sequence[int | None], sizes: Sequence[int]) -> list[int]:
    """Return the smallest batch that holds these slots: the slot at each place, or IDLE.

    A slot with a place of its own needs the largest size, since its rounding depends on that, too.
    """
    fixed = {place: slot for slot, place in zip(slots, places, strict=True) if place is not None}
    size = sizes[-1] if fixed else next(size for size in sizes if size >= len(slots))
    free = iter(slot for slot, place in zip(slots, places, strict=True) if place is None)
    return [fixed[place] if place in fixed else next(free, IDLE) for place in range(size)]


def _chosen(claims: Sequence[Claim], most: int, ordered: Sequence[int]) -> Iterator[int]:
    taken: set[int] = set()
    count = 0
    for index in ordered:
        place = claims[index].place
        if count == most:
            return
        if place is not None:
            if place in taken:
                continue
            taken.add(place)
        count += 1
        yield index
