"""Every command and every Python block in the documentation runs, in the order of its page."""

import re
import runpy
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from difftool.cli import main
from difftool.diffusion.samplers import SAMPLERS

ROOT = Path(__file__).resolve().parents[1]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(sh|python)\n(.*?)^```", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\((?!https?:)([^)#]+)")


def blocks(page: Path) -> Iterator[tuple[str, str]]:
    for match in BLOCK.finditer(page.read_text(encoding="utf-8")):
        yield match[1], match[2]


def shortened(words: list[str]) -> list[str]:
    """Return the command with few steps, so that a slow one is shortened and not skipped."""
    if words[1] == "train" and "--print-config" not in words:
        return [*words, "--steps", "2", "--batch", "8"]
    if words[1] in ("sample", "verify") and ("--steps" not in words or "1000" in words):
        return [*words, "--steps", "20"]
    return words


def run_commands(text: str) -> None:
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if not words or words[0] == "pip":
            continue
        assert words[0] == "difftool", f"not a command of ours: {line}"
        assert main(shortened(words)[1:]) == 0, line


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_says_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for language, text in blocks(page):
        if language == "sh":
            run_commands(text)
        else:
            exec(compile(text, str(page), "exec"), names)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_table_of_samplers_is_that_of_the_code() -> None:
    """`python docs/samplers.py` renews it."""
    page = (ROOT / "docs" / "sampling.md").read_text(encoding="utf-8")
    renewed = runpy.run_path(str(ROOT / "docs" / "samplers.py"))["renewed"]
    assert renewed(page) == page
    assert all(f"\n| `{name}` |" in page for name in SAMPLERS)
