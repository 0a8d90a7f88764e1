"""The outline that people read."""

from difftool.cli.console import outline


def test_outline_aligns_and_sections() -> None:
    record = {
        "name": "x",
        "passed": True,
        "error": 1.23456789e-7,
        "nothing": None,
        "sizes": [1, 28.0],
        "files": {"a": {"size": 3, "ok": False}, "long": {}},
        "empty": {},
    }
    assert outline(record) == [
        "name     x",
        "passed   yes",
        "error    1.23457e-07",
        "nothing  none",
        "sizes    [1, 28]",
        "files:",
        "  a     size 3, ok no",
        "  long  none",
        "empty    none",
    ]
