"""The criteria of docs/reliability.md: what ran for each, what failed, and if its defect was seen.

A test of a criterion is marked `criterion("K1")`. It runs its cases by the fixture `cases`, and
tells the fixture `note` what it measures. A second test is marked `seeded("K1")`: it plants the
criterion's defect and expects the first one's check to fail. There are two tiers, a short one and
that of `--nightly`; the fixture `nightly` says which one runs.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest

from benchmarks.common.machine import machine
from difftool.files import write_atomic

_SHOWN = 5  # failures that a message quotes
_HEAD = ("criterion", "cases", "failures", "seeded defect caught")
_NOTE = "note"
_OUTCOMES = ("passed", "failed", "error", "skipped")

T = TypeVar("T")
R = TypeVar("R")


@dataclass
class Cases:
    """The cases of one test, counted."""

    record: Callable[[str, object], None]

    def run(self, check: Callable[[T], R], items: Iterable[T]) -> list[R]:
        """Return what `check` says of every item; raise AssertionError if some failed."""
        ran, failed, said = 0, [], []
        for item in items:
            ran += 1
            try:
                said.append(check(item))
            except AssertionError as error:
                failed.append(f"{item!r}: {error}")
        self.record("cases", ran)
        self.record("failures", len(failed))
        assert ran, "no case was run"
        assert not failed, f"{len(failed)} of {ran} failed:\n" + "\n".join(failed[:_SHOWN])
        return said


@pytest.fixture
def cases(record_property: Callable[[str, object], None]) -> Cases:
    """Runs and counts the cases of a criterion."""
    return Cases(record_property)


@pytest.fixture
def note(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Adds a line to the report: a figure that the docs quote."""
    return lambda line: record_property(_NOTE, line)


@pytest.fixture(scope="session")
def nightly(pytestconfig: pytest.Config) -> bool:
    """True if the full tier is run."""
    return bool(pytestconfig.getoption("nightly"))


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("difftool")
    group.addoption("--nightly", action="store_true", help="the reliability criteria in full")
    group.addoption("--criteria", type=Path, metavar="FILE", help="write what was run, as Markdown")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "criterion(id): tests a criterion of docs/reliability.md")
    config.addinivalue_line("markers", "seeded(id): plants its defect, which must be seen")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        for name in ("criterion", "seeded"):
            if mark := item.get_closest_marker(name):
                item.user_properties.append((name, mark.args[0]))
                if config.getoption("nightly"):
                    item.add_marker(pytest.mark.timeout(0))


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print a line for each criterion; with `--criteria` also into a file."""
    found = summary(terminalreporter.stats)
    if not found:
        return
    terminalreporter.section("reliability criteria")
    for line in (_HEAD, *found):
        terminalreporter.write_line("  ".join(f"{cell:<10}" for cell in line).rstrip())
    told = notes(terminalreporter.stats)
    for words in told:
        terminalreporter.write_line(words)
    if path := config.getoption("criteria"):
        write_atomic(path, _page(found, told, bool(config.getoption("nightly"))).encode())


def summary(stats: dict[str, list[Any]]) -> list[tuple[str, str, str, str]]:
    """Count pytest's reports: criterion, cases, failures, and "yes" if its defect was seen."""
    counted: dict[str, list[int]] = {}
    seen: dict[str, list[bool]] = {}
    for outcome in _OUTCOMES:
        for report in stats.get(outcome, ()):
            known = dict(getattr(report, "user_properties", ()))
            if name := known.get("criterion"):
                sums = counted.setdefault(name, [0, 0])
                failed = int(known.get("failures", 0))
                sums[0] += int(known.get("cases", outcome in ("passed", "failed")))
                sums[1] += max(failed, int(outcome in ("failed", "error")))
            if name := known.get("seeded"):
                seen.setdefault(name, []).append(outcome == "passed")
    return [
        (name, str(ran), str(failed), "yes" if all(seen.get(name, [False])) else "no")
        for name in sorted(counted | seen)
        for ran, failed in [counted.get(name, (0, 0))]
    ]


def notes(stats: dict[str, list[Any]]) -> list[str]:
    """Return what the tests that passed had to tell, in the order of the alphabet."""
    found = [getattr(report, "user_properties", ()) for report in stats.get("passed", ())]
    return sorted(str(value) for pairs in found for name, value in pairs if name == _NOTE)


def _page(found: list[tuple[str, str, str, str]], told: list[str], nightly: bool) -> str:
    tier = "full" if nightly else "short"
    where = ", ".join(f"{name} {value}" for name, value in machine().items())
    head = "# reliability\n\n*This page is written by `make test-nightly`.*"
    table = [_HEAD, ("---", "---:", "---:", "---"), *found]
    rows = "\n".join(f"| {' | '.join(line)} |" for line in table)
    lines = "".join(f"- {line}\n" for line in told)
    date = time.strftime("%Y-%m-%d")
    return f"{head}\n\n{date}, the {tier} tier.\n\nMachine: {where}.\n\n{rows}\n\n{lines}"
