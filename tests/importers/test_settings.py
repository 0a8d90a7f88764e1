"""The value of a setting, and its source."""

import pytest

from difftool.errors import ArtefactError, UsageError
from difftool.importers.settings import Setting, Settings, SettingsMissing

SIZE = Setting("data.size", int, usual="32", also=("size",))
RATE = Setting("rate", float, default=0.5)
FLAG = Setting("flag", bool, default=True)
WORD = Setting("word", str, default="a", choices=("a", "b"))


def test_the_command_line_goes_before_the_file_and_the_file_before_defaults() -> None:
    chosen = Settings({"size": "8"}, {"data": {"size": 4}, "rate": 2}).choose(SIZE, RATE, FLAG)
    assert dict(chosen.values) == {"data.size": 8, "rate": 2.0, "flag": True}
    assert chosen.assumed == ("flag",)


def test_none_in_a_file_says_nothing() -> None:
    chosen = Settings({}, {"size": 4, "rate": None}).choose(SIZE, RATE)
    assert (chosen[RATE], chosen.assumed) == (0.5, ("rate",))


@pytest.mark.parametrize(
    ("setting", "text", "value"),
    [
        (SIZE, "7", 7),
        (SIZE, "7.0", None),
        (RATE, "1e-4", 1e-4),
        (FLAG, "False", False),
        (FLAG, "true", True),
        (WORD, "b", "b"),
    ],
)
def test_words_of_the_command_line(setting: Setting, text: str, value: object) -> None:
    settings = Settings({setting.name: text}, {})
    if value is None:
        with pytest.raises(UsageError, match="must be of type int"):
            settings.peek(setting)
    else:
        result = settings.peek(setting)
        assert (result, type(result)) == (value, setting.kind)


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        (SIZE, "big", "data.size is 'big'.*int"),
        (SIZE, 1.5, "data.size is 1.5.*int"),
        (SIZE, True, "data.size is True.*int"),
        (SIZE, 0, "data.size is 0.*at least 1"),
        (SIZE, [3], r"data.size is \[3\]"),
        (FLAG, 1, "flag is 1.*bool"),
        (WORD, "c", "word is 'c', which difftool does not import.*a, b"),
    ],
)
def test_a_file_that_says_something_else(setting: Setting, value: object, message: str) -> None:
    with pytest.raises(ArtefactError, match=message):
        Settings({}, {setting.name: value}).choose(setting)


def test_everything_missing_is_asked_for_at_once() -> None:
    other = Setting("steps", int, usual="1000")
    with pytest.raises(SettingsMissing, match=r"tell data\.size, steps.*--set data\.size=\.\.\."):
        Settings({}, {}).choose(SIZE, other, RATE)


def test_what_no_setting_is_called_is_refused() -> None:
    with pytest.raises(UsageError, match=r"no setting 'sise'.*data\.size, rate"):
        Settings({"sise": "3"}, {"anything": 1}).choose(SIZE, RATE)
