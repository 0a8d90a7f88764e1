"""The site of the documentation: built strictly, complete, and searched in Chromium."""

import importlib
import json
import os
import runpy
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

from tests.browser.tabs import Browser, Tab, served

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
DOORS = runpy.run_path(str(DOCS / "api.py"))["DOORS"]
COMMANDS = runpy.run_path(str(DOCS / "commands.py"))["pages"]()


def build(source: Path, site: Path) -> subprocess.CompletedProcess[str]:
    """Do what `make docs` does, in another folder."""
    rules = subprocess.check_output(
        ["make", "--dry-run", "docs", f"SITE={site}"], cwd=ROOT, text=True
    )
    (line,) = [line for line in rules.splitlines() if "-m sphinx" in line]
    words = shlex.split(line)
    words[0], words[words.index("docs")] = sys.executable, str(DOCS)
    return subprocess.run(words, cwd=source, capture_output=True, text=True)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the site once, for all tests."""
    folder = tmp_path_factory.mktemp("docs") / "site"
    done = build(ROOT, folder)
    assert (done.returncode, done.stderr) == (0, "")
    return folder


@pytest.fixture(scope="module")
def index(site: Path) -> Any:
    """What the search of the site knows."""
    text = (site / "searchindex.js").read_text(encoding="utf-8")
    return json.loads(text.removeprefix("Search.setIndex(").removesuffix(")"))


def test_a_warning_fails(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    page = tmp_path / "docs" / "README.md"
    page.write_text("# A page\n\n[Nowhere](nowhere.md)\n")
    done = build(tmp_path, tmp_path / "site")
    assert done.returncode != 0
    assert "nowhere.md" in done.stderr
    page.write_text("# A page\n")
    assert build(tmp_path, tmp_path / "site").returncode == 0


def test_every_public_name_is_found_in_the_reference(index: Any) -> None:
    found = {
        (title, index["docnames"][page])
        for title, places in index["alltitles"].items()
        for page, _ in places
    }
    for door in DOORS:
        names = importlib.import_module(door).__all__
        assert names
        for name in names:
            assert (name, f"docs/api/{door}") in found, f"{door}.{name}: python docs/api.py"


def test_every_page_is_in_the_site_and_its_search(site: Path, index: Any) -> None:
    pages = [*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *(ROOT / "benchmarks").rglob("*.md")]
    names = {str(page.relative_to(ROOT).with_suffix("")) for page in pages}
    assert names <= set(index["docnames"])
    assert all((site / f"{name}.html").is_file() for name in names)
    assert "url=docs/README.html" in (site / "index.html").read_text().replace("url ", "url")


def test_the_pages_of_commands_are_what_the_commands_say() -> None:
    """`python docs/commands.py` renews them."""
    written = {
        page.name: page.read_text(encoding="utf-8") for page in (DOCS / "commands").iterdir()
    }
    assert written == COMMANDS


@pytest.fixture
def tab(site: Path, node: str, chromium: str, modules: Path) -> Iterator[Tab]:
    """The first page of the site, as its folder is delivered by a web server."""
    browser = Browser(node, chromium, modules)
    files = Starlette(routes=[Mount("/", StaticFiles(directory=site, html=True))])
    try:
        with served(files) as url, browser.tab(url) as tab:
            yield tab
    finally:
        browser.end()


def test_one_reads_and_searches_it_offline(tab: Tab, tmp_path: Path) -> None:
    tab("await page.waitForURL('**/docs/README.html')")
    captions = tab("return page.locator('.sidebar-tree .caption-text').allTextContents()")
    assert captions == ["Tutorials", "How-to guides", "Reference", "Explanation"]
    picture = tmp_path / "site.png"
    if folder := os.environ.get("KEEP_PAGE"):
        picture = Path(folder) / "site.png"
    tab("await page.screenshot({path})", path=str(picture))
    assert picture.stat().st_size > 0
    tab("await page.fill('.sidebar-search', 'dpmpp_2m'); await page.keyboard.press('Enter')")
    tab("await page.waitForURL('**/search.html?*')")
    tab("await page.locator('#search-results .search li a').nth(3).waitFor()")
    tab("await page.locator('#search-results .search-summary', {hasText: 'found'}).waitFor()")
    found = tab("return page.locator('#search-results .search li a').allTextContents()")
    assert "Sampling" in found
    # The search reads each page that it has found; one that is cut off would count as a fault.
    tab("await page.waitForLoadState('networkidle')")
