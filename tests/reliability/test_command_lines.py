"""Five hundred wrong command lines: each ends with one line and a hint, and no traceback."""

import random
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from difftool.cli import command as module
from tests.reliability import commands
from tests.reliability.bad_lines import bad_lines
from tests.reliability.commands import Trouble, require_one_error
from tests.reliability.criteria import Cases
from tests.reliability.invented_lines import INVENTED

BY_DAY: Final = 12  # of the invented lines
COUNT: Final = {False: 50, True: 500}
CODES: Final = (2, 3, 4, 5)
# What a training says before it reads its data.
NARRATION: Final = re.compile(r"\A(?:training|distilling) \S+ into \S+\n")

Check = Callable[..., None]


@pytest.fixture
def check(tmp_path: Path, tiny_bundle: Path, tiny_checkpoint: Path, points_bundle: Path) -> Check:
    """Run a line in a folder; AssertionError if it ends in another way than it should."""
    places = {"bundle": tiny_bundle, "checkpoint": tiny_checkpoint, "points": points_bundle}

    def run(
        line: list[str],
        trouble: Trouble | None = None,
        *,
        codes: tuple[int, ...] = CODES,
        hinted: bool = False,
    ) -> None:
        place = tmp_path / "place"
        shutil.rmtree(place, ignore_errors=True)
        (place / "folder").mkdir(parents=True)
        (place / "taken.png").write_text("mine")
        (place / "garbage.bin").write_bytes(bytes(range(256)))
        before = sorted(place.rglob("*"))
        ended = commands.run([word.format(**places) for word in line], place, trouble)
        ended = replace(ended, err=NARRATION.sub("", ended.err))
        require_one_error(ended, codes)
        assert not hinted or "\nhint: " in ended.err, ended.err
        assert re.fullmatch(r"error: \S.{3,}", ended.err.splitlines()[0]), ended.err
        assert sorted(place.rglob("*")) == before, "something was written"

    return run


def lines(count: int) -> list[list[str]]:
    """Return so many of all lines, of all commands alike."""
    found = bad_lines()
    random.Random(0).shuffle(found)
    assert len(found) >= count
    return found[:count]


@pytest.mark.criterion("command line")
def test_a_wrong_line_ends_with_one_line(check: Check, cases: Cases, nightly: bool) -> None:
    cases.run(check, lines(COUNT[nightly]))


@pytest.mark.criterion("command line")
def test_an_invented_line_ends_with_its_code(check: Check, cases: Cases, nightly: bool) -> None:
    """With one line and a hint, and nothing left behind; by day, the first of a shuffled list."""
    found = [(line.split(), code) for code, lines in INVENTED.items() for line in lines]
    random.Random(0).shuffle(found)
    assert len(found) >= 60

    def one(case: tuple[list[str], int]) -> None:
        line, code = case
        check(line, codes=(code,), hinted=True)

    cases.run(one, found if nightly else found[:BY_DAY])


def test_every_command_is_among_them() -> None:
    found = {line[0] for line in lines(COUNT[True])}
    assert {"train", "import", "export", "sample", "verify", "plot", "cache"} <= found


def break_the_handler() -> None:
    def broken(error: BaseException, _: object) -> None:
        raise error

    module.as_fault = broken  # type: ignore[assignment]


@pytest.mark.seeded("command line")
def test_a_traceback_is_seen(check: Check) -> None:
    with pytest.raises(AssertionError, match="Traceback"):
        check(["sample", "nowhere"], Trouble(defect=break_the_handler))
