"""Five hundred wrong command lines: each ends with one line and a hint, and no traceback."""

import random
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from tests.reliability.bad_lines import bad_lines
from tests.reliability.criteria import Cases
from tests.reliability.warm import RUNTIME, Warm, one_error

COUNT: Final = {False: 50, True: 500}
CODES: Final = (2, 3, 4, 5)
HEAVY: Final = (
    "difftool.importers.importing",
    "difftool.train.trainer",
    "difftool.export.bundle",
    "difftool.verify.compared",
    "difftool.compile.quantization.bundle",
    "difftool.compile.engine.target",
    "difftool.plot",
    "difftool.evaluate.evaluation",
)
# What a training says before it reads its data.
NARRATION: Final = re.compile(r"\Atraining \S+ into \S+\n")
BROKEN_HANDLER: Final = """
import difftool.cli.command
def broken(error, arguments):
    raise error
difftool.cli.command.as_fault = broken
"""

Check = Callable[[list[str]], None]


@pytest.fixture(scope="module")
def warm() -> Iterator[Warm]:
    with Warm([*RUNTIME, *HEAVY]) as process:
        yield process


@pytest.fixture
def check(
    warm: Warm, tmp_path: Path, tiny_bundle: Path, tiny_checkpoint: Path, points_bundle: Path
) -> Callable[..., None]:
    """Run a line in a folder; AssertionError where it ends in another way than it should."""
    places = {"bundle": tiny_bundle, "checkpoint": tiny_checkpoint, "points": points_bundle}

    def run(line: list[str], setup: str = "") -> None:
        place = tmp_path / "place"
        shutil.rmtree(place, ignore_errors=True)
        (place / "folder").mkdir(parents=True)
        (place / "taken.png").write_text("mine")
        (place / "garbage.bin").write_bytes(bytes(range(256)))
        before = sorted(place.rglob("*"))
        ran = warm([word.format(**places) for word in line], place, setup=setup)
        ran = replace(ran, err=NARRATION.sub("", ran.err))
        one_error(ran, CODES)
        assert re.fullmatch(r"error: \S.{3,}", ran.err.splitlines()[0]), ran.err
        assert sorted(place.rglob("*")) == before, "something was written"

    return run


def lines(count: int) -> list[list[str]]:
    """So many of all lines, of all commands alike."""
    found = bad_lines()
    random.Random(0).shuffle(found)
    assert len(found) >= count
    return found[:count]


@pytest.mark.criterion("command line")
def test_a_wrong_line_ends_with_one_line(check: Check, cases: Cases, nightly: bool) -> None:
    cases.run(check, lines(COUNT[nightly]))


def test_every_command_is_among_them() -> None:
    commands = {line[0] for line in lines(COUNT[True])}
    assert {"train", "import", "export", "sample", "verify", "plot", "cache"} <= commands


@pytest.mark.seeded("command line")
def test_a_traceback_is_seen(check: Callable[..., None]) -> None:
    with pytest.raises(AssertionError, match="Traceback"):
        check(["sample", "nowhere"], BROKEN_HANDLER)
