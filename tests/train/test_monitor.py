"""Records of a run, and what a resumed run keeps of them."""

import json
import sys
from pathlib import Path

import pytest

from difftool.train.monitor import METRICS, Monitor

VALUES = {"loss": 0.5, "lr": 0.1, "grad_norm": 2.0, "images_per_second": 10.0}
FIRST, SECOND = (json.dumps({"step": step, **VALUES}).encode() for step in (1, 2))


def steps(run: Path) -> list[int]:
    return [json.loads(line)["step"] for line in (run / METRICS).read_text().splitlines()]


def test_records_past_the_start_are_dropped(tmp_path: Path) -> None:
    with Monitor(tmp_path, start=0, steps=10, progress=False) as monitor:
        for step in range(1, 8):
            monitor.record(step, **VALUES)
    with (tmp_path / METRICS).open("a") as file:
        file.write('{"step": 8, "lo')  # a crash in the middle of a line
    with Monitor(tmp_path, start=4, steps=10, progress=False) as monitor:
        assert steps(tmp_path) == [1, 2, 3, 4]
        monitor.record(5, **VALUES)
    assert steps(tmp_path) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("terminal", [True, False])
def test_the_progress_is_on_stderr(
    terminal: bool,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A bar on a terminal; lines elsewhere."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    monkeypatch.setenv("TERM", "xterm")
    with Monitor(tmp_path, start=0, steps=3, progress=True) as monitor:
        for step in range(1, 4):
            monitor.advance()
            monitor.record(step, **VALUES)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert ("3/3" in shown.err) == terminal
    assert ("step 3 of 3, loss 0.5, 10.0 images/s\n" in shown.err) != terminal
    assert "loss 0.5" in shown.err
    assert "10.0 images/s" in shown.err
    assert ("\x1b" in shown.err) == terminal


NO_RECORDS = [
    b"",
    b"not JSON",
    b"\xff\xfe",
    b"7",
    b"null",
    b'"step"',
    b"[1, 2]",
    b"{}",
    b'{"loss": 0.5}',
    b'{"step": null}',
    b'{"step": "2"}',
    b'{"step": true}',
    b'{"step": 1.5}',
    b'{"step": [2]}',
    b'{"step": NaN}',
    b'{"step": ' + b"9" * 5000 + b"}",
    b"[" * 100_000,
]


def test_lines_that_are_no_records_are_left_out_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / METRICS).write_bytes(b"\n".join((FIRST, *NO_RECORDS, SECOND, b"")))
    with Monitor(tmp_path, start=4, steps=10, progress=False):
        assert steps(tmp_path) == [1, 2]
    said = [record.getMessage() for record in caplog.records]
    assert said == [
        f"{tmp_path / METRICS}: line {number} is not a record, and is left out"
        for number in range(2, 2 + len(NO_RECORDS))
    ]


@pytest.mark.parametrize("rest", [None, *NO_RECORDS], ids=lambda line: repr(line and line[:12]))
def test_what_was_cut_off_after_the_last_record_goes_without_a_word(
    rest: bytes | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The record itself is kept, even if it lacks its line feed."""
    (tmp_path / METRICS).write_bytes(FIRST if rest is None else FIRST + b"\n" + rest)
    with Monitor(tmp_path, start=4, steps=10, progress=False) as monitor:
        monitor.record(5, **VALUES)
    assert steps(tmp_path) == [1, 5]
    assert not caplog.records
