"""Taking turns, and comparing round by round."""

import subprocess
import sys
from pathlib import Path

import pytest
from common import timing
from common.timing import interleave, ratios


def test_candidates_take_turns_in_alternating_order_after_a_round_that_is_not_counted() -> None:
    calls: list[str] = []
    candidates = {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}
    seconds = interleave(candidates, rounds=2)
    assert "".join(calls) == "abbaab"
    assert {name: len(values) for name, values in seconds.items()} == {"a": 2, "b": 2}
    assert all(value >= 0 for values in seconds.values() for value in values)


def test_rounds_are_compared_with_their_own_round() -> None:
    assert ratios([2, 30], [1, 10]) == [2, 3]
    with pytest.raises(ValueError, match="shorter"):
        ratios([1, 2], [1])


# In a process of its own: pytest has its own use for this signal.
LATE = """
import signal
from common.timing import deadline

before = signal.getsignal(signal.SIGALRM)
with deadline(600):
    assert 0 < signal.getitimer(signal.ITIMER_REAL)[0] <= 600
try:
    with deadline(600):
        signal.raise_signal(signal.SIGALRM)  # as the system does when the time is over
except TimeoutError as error:
    print(error)
assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)
assert signal.getsignal(signal.SIGALRM) == before
"""


def test_a_deadline_ends_what_takes_too_long() -> None:
    folder = Path(timing.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", LATE], cwd=folder, capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("not ready within 600 s\n", 0), done.stderr
