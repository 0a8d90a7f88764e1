"""The pictures of docs/scale.md are those of their script and of the committed record."""

import runpy
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_pictures_are_drawn_anew_when_the_record_changes() -> None:
    drawn = runpy.run_path(str(ROOT / "docs" / "scale.py"))["pictures"]()
    for name, text in drawn.items():
        committed = (ROOT / "docs" / "images" / name).read_text(encoding="utf-8")
        assert committed == text, "draw it again: python docs/scale.py"


def test_the_page_shows_them_all() -> None:
    page = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
    for name in runpy.run_path(str(ROOT / "docs" / "scale.py"))["pictures"]():
        assert f"(images/{name})" in page
