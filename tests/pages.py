"""The pages of the documentation, and the blocks on them that a reader may run."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
FOLDERS: Final = (ROOT, ROOT / "docs", ROOT / "docs" / "tutorials")
PAGES: Final = [page for folder in FOLDERS for page in sorted(folder.glob("*.md"))]
SERVER: Final = "http://127.0.0.1:8000"  # in the examples
_BLOCK: Final = re.compile(r"^```(sh|python)\n(.*?)^```", re.DOTALL | re.MULTILINE)


def blocks(page: Path) -> Iterator[tuple[str, str]]:
    """Yield the language and the text of each block that is a shell's or Python's."""
    for match in _BLOCK.finditer(page.read_text(encoding="utf-8")):
        yield match[1], match[2]
