"""The committed pages are those of the committed results."""

from pathlib import Path

import pytest
from pages import pages


@pytest.mark.parametrize(("path", "text"), [pytest.param(*p, id=p[0].name) for p in pages()])
def test_a_committed_page_is_that_of_the_committed_results(path: Path, text: str) -> None:
    assert path.read_text(encoding="utf-8") == text
