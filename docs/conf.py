"""The site of the documentation, which `make docs` builds into build/site.

The pages are plain Markdown, which a code host shows as it is. All that a site needs beyond it is
made here: the lists of links in an index page become the table of contents.
"""

import re
import runpy
from pathlib import Path
from typing import Any, Final

from sphinx.application import Sphinx

ROOT: Final = Path(__file__).resolve().parents[1]

project = "difftool"
author = "the authors of difftool"
release = runpy.run_path(str(ROOT / "src" / "difftool" / "version.py"))["__version__"]

# Sphinx reads from the root of the repository, so that a link between pages is the same everywhere.
root_doc = "docs/README"
include_patterns = ["*.md", "docs/**.md", "benchmarks/**.md", "examples/notebooks/*.md"]
exclude_patterns = [".*", "build", "dist", "src", "tests", "shared", "runs", "demo"]
extensions = ["myst_parser"]
myst_heading_anchors = 4
nitpicky = True

html_theme = "furo"
html_favicon = "images/icon.svg"  # a browser asks for one, and a site has none of its own
html_title = f"difftool {release}"
html_copy_source = False
html_show_copyright = False
templates_path = ["site"]
html_additional_pages = {"index": "index.html"}  # the folder itself leads to the first page

# Pages whose lists of links are contents, with what else belongs below them.
INDEXES: Final = {
    "docs/README": "",
    "docs/api/README": "",
    "docs/commands/README": "",
    "benchmarks/README": "results/*",
}
_SECTION: Final = re.compile(r"^##(?!#) *(.*)$", re.MULTILINE)
_ENTRY: Final = re.compile(r"^- \[([^\]]+)\]\(([^)#]+)\.md\)", re.MULTILINE)


def contents(app: Sphinx, docname: str, source: list[str]) -> None:
    """Add the contents of an index page to its end: one hidden list for each of its sections."""
    if docname not in INDEXES:
        return
    _, *sections = _SECTION.split("##\n" + source[0])
    for caption, text in zip(sections[::2], sections[1::2], strict=True):
        entries = [f"{title.strip('`')} <{page}>" for title, page in _ENTRY.findall(text)]
        source[0] += _toctree(caption, entries)
    if INDEXES[docname]:
        source[0] += _toctree("", [INDEXES[docname]])


def _toctree(caption: str, entries: list[str]) -> str:
    if not entries:
        return ""
    options = [":hidden:", ":glob:", *([f":caption: {caption}"] if caption else [])]
    return "\n".join(["", "", "```{toctree}", *options, "", *entries, "```", ""])


def setup(app: Sphinx) -> dict[str, Any]:
    """Take part in reading."""
    app.connect("source-read", contents)
    return {"parallel_read_safe": True}
