"""The bars of docs/reliability.md: what was run for each, what failed, whether its defect is seen.

A test that holds a bar up is marked `bar("K1")` and runs its cases through the fixture `cases`.
The test that applies the bar's seeded defect, and expects it to turn red, is marked `seeded("K1")`.
A bar has two tiers: a short one, and that of `--nightly`; the fixture `nightly` says which is run.
"""

import platform
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest

from difftool.files import write_atomic

_SHOWN = 5  # failures that a message quotes
_HEAD = ("bar", "cases", "failures", "seeded defect caught")
_OUTCOMES = ("passed", "failed", "error", "skipped")

T = TypeVar("T")


@dataclass
class Cases:
    """The cases of one test, counted."""

    record: Callable[[str, object], None]

    def run(self, check: Callable[[T], object], items: Iterable[T]) -> None:
        """Call `check` with every item; AssertionError at the end, with those that failed."""
        ran, failed = 0, []
        for item in items:
            ran += 1
            try:
                check(item)
            except AssertionError as error:
                failed.append(f"{item!r}: {error}")
        self.record("cases", ran)
        self.record("failures", len(failed))
        assert ran, "no case was run"
        assert not failed, f"{len(failed)} of {ran} failed:\n" + "\n".join(failed[:_SHOWN])


@pytest.fixture
def cases(record_property: Callable[[str, object], None]) -> Cases:
    """Runs and counts the cases of a bar."""
    return Cases(record_property)


@pytest.fixture(scope="session")
def nightly(pytestconfig: pytest.Config) -> bool:
    """Whether the full tier is run."""
    return bool(pytestconfig.getoption("nightly"))


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("difftool")
    group.addoption("--nightly", action="store_true", help="the reliability bars in full")
    group.addoption("--bars", type=Path, metavar="FILE", help="write what was run, as Markdown")


def pytest_configure(config: pytest.Config) -> None:
    for name, meaning in (("bar", "holds up a bar"), ("seeded", "expects its defect to be seen")):
        config.addinivalue_line("markers", f"{name}(id): {meaning} of docs/reliability.md")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        for name in ("bar", "seeded"):
            if mark := item.get_closest_marker(name):
                item.user_properties.append((name, mark.args[0]))
                if config.getoption("nightly"):
                    item.add_marker(pytest.mark.timeout(0))


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """A line for each bar; with `--bars` also in a file."""
    found = summary(terminalreporter.stats)
    if not found:
        return
    terminalreporter.section("reliability bars")
    for line in (_HEAD, *found):
        terminalreporter.write_line("  ".join(f"{cell:<10}" for cell in line).rstrip())
    if path := config.getoption("bars"):
        write_atomic(path, _page(found, bool(config.getoption("nightly"))).encode())


def summary(stats: dict[str, list[Any]]) -> list[tuple[str, str, str, str]]:
    """Of pytest's reports by outcome: bar, cases, failures, and whether its defect was seen."""
    counted: dict[str, list[int]] = {}
    seen: dict[str, list[bool]] = {}
    for outcome in _OUTCOMES:
        for report in stats.get(outcome, ()):
            known = dict(getattr(report, "user_properties", ()))
            if name := known.get("bar"):
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


def _page(found: list[tuple[str, str, str, str]], nightly: bool) -> str:
    tier = "full" if nightly else "short"
    machine = f"{platform.machine()}, {platform.system()}, Python {platform.python_version()}"
    lines = [
        "# reliability",
        "",
        "*This page is written by `make test-nightly`.*",
        "",
        f"{time.strftime('%Y-%m-%d')}, the {tier} tier, on {machine}.",
        "",
        f"| {' | '.join(_HEAD)} |",
        "| --- | ---: | ---: | --- |",
        *(f"| {' | '.join(line)} |" for line in found),
        "",
    ]
    return "\n".join(lines)
