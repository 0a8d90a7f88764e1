"""The summary counts what was run, and shows a criterion in which nobody seeds a defect."""

from types import SimpleNamespace

import pytest

from tests.reliability.criteria import Cases, notes, summary


def _report(**properties: object) -> SimpleNamespace:
    return SimpleNamespace(user_properties=list(properties.items()))


def test_cases_and_failures_are_added_up() -> None:
    stats = {
        "passed": [
            _report(criterion="K1", cases=30, failures=0),
            _report(criterion="K1"),
            _report(seeded="K1"),
        ],
        "failed": [
            _report(criterion="K2", cases=9, failures=4),
            _report(criterion="K4"),
            _report(seeded="K2"),
        ],
        "": [_report(criterion="K1", cases=500)],  # the report of a test's setup
    }
    assert summary(stats) == [
        ("K1", "31", "0", "yes"),
        ("K2", "9", "4", "no"),
        ("K4", "1", "1", "no"),
    ]


def test_what_failed_has_no_note() -> None:
    stats = {
        "passed": [_report(note="b"), _report(criterion="K1", note="a")],
        "failed": [_report(note="c")],
    }
    assert notes(stats) == ["a", "b"]


def test_cases_go_on_after_a_failure() -> None:
    recorded: dict[str, object] = {}

    def even(number: int) -> None:
        if number % 2:
            raise AssertionError("odd")

    with pytest.raises(AssertionError, match="2 of 4 failed:\n1: odd\n3: odd"):
        Cases(recorded.__setitem__).run(even, range(4))
    assert recorded == {"cases": 4, "failures": 2}


def test_no_case_is_a_failure() -> None:
    with pytest.raises(AssertionError, match="no case was run"):
        Cases({}.__setitem__).run(print, [])
