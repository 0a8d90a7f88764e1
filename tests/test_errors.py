"""Messages are one line that a person reads, whatever they quote."""

import pytest

from difftool import errors
from difftool.errors import MOST_CHARACTERS, DifftoolError, UsageError, quoted, short


@pytest.mark.parametrize("error", [DifftoolError, UsageError])
def test_a_message_is_one_short_line(error: type[DifftoolError]) -> None:
    found = error("start " + "x\n" * 500_000 + "end", "do\r\nthis " + "y" * 900_000)
    for text in (found.message, found.hint):
        assert len(text.splitlines()) == 1
        assert len(text) <= MOST_CHARACTERS
    assert found.message.startswith("start x x")
    assert found.message.endswith("x end")
    assert found.hint.startswith("do this y")


def test_a_short_message_is_left_as_it_is() -> None:
    found = UsageError("nothing  at a/b ü", "give\tone")
    assert (found.message, found.hint) == ("nothing  at a/b ü", "give\tone")
    assert str(found) == "nothing  at a/b ü (give\tone)"


def test_what_is_left_out_is_the_middle() -> None:
    assert short("a" * 50 + "b" * 50, 20) == "aaaaaaaaaa ... bbbbb"
    assert short("a" * 20, 20) == "a" * 20


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("it", "'it'"),
        ("two\nlines", r"'two\nlines'"),
        ([1, None], "[1, None]"),
        ("\udcff", r"'\udcff'"),
        (1 << 20_000, "an int that is too large to print"),
    ],
    ids=["word", "lines", "list", "surrogate", "number"],
)
def test_values_are_quoted_as_they_are_written(value: object, text: str) -> None:
    assert quoted(value) == text


def test_a_long_value_is_cut() -> None:
    for value in ("x" * 10**6, [0] * 10**5, {"a": "y" * 10**6}):
        assert len(quoted(value)) == 200
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    assert quoted(deep) == "a list that is too large to print"


def test_the_words_to_install_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """From a clone until the first release, and then from the index."""
    assert errors.install_hint("cpu") == "run in your clone of difftool: pip install '.[cpu]'"
    monkeypatch.setattr(errors, "RELEASED", True)
    assert errors.install_hint("cpu,ray") == "run: pip install 'difftool[cpu,ray]'"
    assert errors.pip_install("trt", "--pre") == "pip install --pre 'difftool[trt]'"
    assert errors.CPU_TORCH not in errors.MissingDependencyError.extra("ray", "ray").hint
    assert errors.CPU_TORCH in errors.MissingDependencyError.extra("torch", "train").hint
