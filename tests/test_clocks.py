"""No verdict depends on the speed of the machine: no test looks at a clock, or is in a hurry."""

import re
from pathlib import Path
from typing import Final

from tests.reliability.forked import PATIENCE

TESTS: Final = Path(__file__).parent
CLOCK: Final = re.compile(
    r"\b(?:sleep|perf_counter|monotonic|process_time)\(|\btime\.time\(|-max_total_time"
)
# Limits of time, in Python, in JavaScript and in libFuzzer's options.
LIMIT: Final = re.compile(
    r"(?:timeout\w*[=:(]\s*|Timeout\(|\b(?:alarm|poll|join|wait)\()(\d[\d_]*)"
)
# By night the fuzzer has a budget of time; what it says of an input does not depend on it.
ALLOWED: Final = '_NIGHTLY: Final = ("-max_total_time=260",)'
# It says how long a new user waits, and judges nothing.
TELLS: Final = "first_hour.py"


def hurried(text: str) -> list[str]:
    """Return the lines that look at a clock, or allow less time than what hangs is given."""
    return [
        line.strip()
        for line in text.splitlines()
        if CLOCK.search(line) or any(0 < int(limit) < PATIENCE for limit in LIMIT.findall(line))
    ]


def test_no_test_looks_at_a_clock() -> None:
    files = [path for end in ("py", "mjs") for path in TESTS.rglob(f"*.{end}")]
    found = {
        (path.relative_to(TESTS).as_posix(), line)
        for path in files
        if path not in (Path(__file__), TESTS / TELLS)
        for line in hurried(path.read_text(encoding="utf-8"))
    }
    assert found == {("reliability/test_fuzz_parsers.py", ALLOWED)}


def test_what_is_hurried_is_seen() -> None:
    for line in (
        "time.sleep(1)",
        "begin = time.perf_counter()",
        "subprocess.run(line, timeout=60)",
        "@pytest.mark.timeout(120)",
        "process.join(5)",
        "signal.alarm(60)  # in a child",
        "await page.waitForSelector(name, { timeout: 90 });",
        'LIMITS = ("-timeout=30",)',
    ):
        assert hurried(line) == [line]
    for line in (
        "@pytest.mark.timeout(900)",
        "process.join()",
        "wait(timeout=PATIENCE)",
        "timeout=0",
        "timeouts",
    ):
        assert hurried(line) == []
