"""The demo on a tiny model, and the commands that it prints. The shipped models are left out."""

from pathlib import Path

import pytest
from PIL import Image
from typer.main import get_command

from difftool.cli import main as difftool
from difftool.cli.app import app
from difftool.train.config import TrainConfig, apply_overrides
from difftool.train.presets import preset
from examples import demo

TINY = (
    "run.steps=2",
    "run.batch=8",
    "schedule.steps=20",
    "network.arguments={channels = 8, multipliers = [1], attention = [], blocks = 1, groups = 4}",
)
PICTURE = Path("demo/digits.png")


def _tiny(name: str) -> TrainConfig:
    return apply_overrides(preset(name), TINY)


def test_the_demo_ends_well_and_its_commands_do_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("difftool.shipped_models", list)
    monkeypatch.setattr("difftool.train.preset", _tiny)
    assert demo.main() == 0

    out = capsys.readouterr().out
    commands = [line.split()[1:] for line in out.splitlines() if line.startswith("  difftool ")]
    assert [name for name, *_ in commands] == ["train", "export", "verify", "sample"]
    for name, *arguments in commands:
        get_command(app).commands[name].make_context(name, arguments)  # it parses

    drawn = PICTURE.read_bytes()
    with Image.open(PICTURE) as image:
        # four by four images of 8 pixels, with 2 around each, four times as large
        assert image.size == (168, 168)
    assert difftool(commands[-1]) == 0
    assert PICTURE.read_bytes() == drawn
