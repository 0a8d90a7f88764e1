"""Whatever the bytes, the parsers of files from elsewhere raise nothing but a DifftoolError.

corpus/TARGET holds inputs that reach far, and all that were ever found to break a parser. They are
run by every test run, on every system; the fuzzer goes on from them.
"""

import os
import re
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import pytest

from tests.reliability import fuzz_targets
from tests.reliability.criteria import Cases
from tests.reliability.fuzz_targets import TARGETS
from tests.reliability.refusals import refusal

HERE: Final = Path(__file__).parent
CORPUS: Final = HERE / "corpus"
# For each of seven targets: half an hour in all by night; else few inputs, and always the same.
_NIGHTLY: Final = ("-max_total_time=260",)
_SHORT: Final = ("-runs=2000", "-seed=1")
_SLOW: Final = {  # each input of which makes a network, a picture or much of another library's work
    "recipe": ("-runs=75", "-seed=1"),
    "image": ("-runs=500", "-seed=1"),
    "yaml": ("-runs=500", "-seed=1"),
}
_LIMITS: Final = ("-rss_limit_mb=4096", "-timeout=500", "-max_len=16384", "-print_final_stats=1")

A_KEY_ERROR: Final = """
import difftool.bundle as b
def parse(path, value, parse=b._parse):
    if isinstance(value, dict) and value.get("format") == 1:
        value["spec"]
    return parse(path, value)
b._parse = parse
"""


@pytest.fixture(scope="module", autouse=True)
def folders() -> Iterator[None]:
    yield
    for name in ("bundle", "config", "recipe", "yaml", "checkpoint"):
        shutil.rmtree(fuzz_targets._folder(name), ignore_errors=True)


def fuzz(target: str, length: Sequence[str], seeds: Path, folder: Path, defect: str = "") -> int:
    """Return how many inputs were run; AssertionError if one of them broke the parser."""
    found = folder / "found"
    found.mkdir()
    line = [sys.executable, HERE / "fuzzer.py", target, *length, *_LIMITS]
    words = CORPUS / f"{target}.dict"
    line += [f"-dict={words}"] if words.exists() else []
    done = subprocess.run(
        [*map(str, line), f"-artifact_prefix={folder}/", str(found), str(seeds)],
        capture_output=True,
        text=True,
        errors="replace",
        env={**os.environ, "DEFECT": defect, "TMPDIR": str(folder), "PYTHONHASHSEED": "0"},
    )
    said = done.stderr + done.stdout
    assert done.returncode == 0, f"{target}: {_finding(said)}"
    executed = re.search(r"number_of_executed_units:\s*(\d+)", said)
    assert executed, said[-2000:]
    return int(executed[1])


def _finding(said: str) -> str:
    """Return the traceback, and the place of the input."""
    start = said.find("=== Uncaught Python exception")
    return said[start if start >= 0 else -3000 :][:3000]


@pytest.mark.criterion("fuzzing")
@pytest.mark.parametrize("target", TARGETS)
def test_the_corpus(target: str, cases: Cases) -> None:
    def check(file: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            refusal(lambda: TARGETS[target](file.read_bytes()))

    cases.run(check, sorted((CORPUS / target).iterdir()))


@pytest.mark.criterion("fuzzing")
@pytest.mark.parametrize("target", TARGETS)
def test_what_the_fuzzer_makes(target: str, tmp_path: Path, cases: Cases, nightly: bool) -> None:
    pytest.importorskip("atheris", reason="atheris has wheels for Linux on x86-64 only")
    executed = fuzz(
        target, _NIGHTLY if nightly else _SLOW.get(target, _SHORT), CORPUS / target, tmp_path
    )
    cases.record("cases", executed)
    assert executed > len(list((CORPUS / target).iterdir()))


@pytest.mark.seeded("fuzzing")
def test_a_parser_that_raises_key_error_is_seen(tmp_path: Path) -> None:
    pytest.importorskip("atheris", reason="atheris has wheels for Linux on x86-64 only")
    seeds = tmp_path / "seeds"
    seeds.mkdir()
    shutil.copy(CORPUS / "manifest" / "whole.json", seeds)  # the defect is not among the seeds
    with pytest.raises(AssertionError, match="KeyError: 'spec'"):
        fuzz("manifest", ("-runs=40000", "-seed=1"), seeds, tmp_path, A_KEY_ERROR)
