"""A copy of the project, for examples that do exactly what a list of CONTRIBUTING.md says.

Each example adds something called `mine`, uses it in processes of their own, and compares the files
that it changed with those that begin the items of its list.
"""

import re
import shutil
from difflib import ndiff
from pathlib import Path

import pytest

from tests.fresh import python

ROOT = Path(__file__).resolve().parents[2]
NAME = "mine"  # what the lists call NAME
# Large, and the same for every example.
LINKED = ("src/difftool/models", "src/difftool/extractors", "docs/images", "benchmarks")
COPIED = ("src", "docs", "tests", "README.md", "pyproject.toml")

RUN = """
import shlex, sys
from difftool.cli import main
for line in sys.argv[1:]:
    if code := main(shlex.split(line)):
        sys.exit(code)
"""


def listed(heading: str) -> set[str]:
    """Return the files that the items of a list in CONTRIBUTING.md begin with, NAME filled in."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    _, found, rest = text.partition(f"\n### {heading}\n")
    assert found, f"no list of that heading: {heading}"
    section = re.split(r"^#", rest, maxsplit=1, flags=re.MULTILINE)[0]
    items = re.findall(r"^\d+\. (?:`([^`]+)`)?", section, re.MULTILINE)
    assert items, f"no items below that heading: {heading}"
    assert all(items), f"an item begins with no file: {heading}"
    return {path.replace("NAME", NAME) for path in items}


class Project:
    """A copy of the project in a folder, and what is changed and run in it."""

    def __init__(self, root: Path, original: Path) -> None:
        self.root = root
        self._original = original

    def write(self, path: str, text: str) -> None:
        """Write a new file."""
        with open(self.root / path, "x", encoding="utf-8") as file:
            file.write(text.lstrip())

    def insert(self, path: str, *, after: str, lines: str) -> None:
        """Add lines to a file, after the only one that begins with these words."""
        file = self.root / path
        old = file.read_text(encoding="utf-8").splitlines(keepends=True)
        (place,) = (index for index, line in enumerate(old) if line.lstrip().startswith(after))
        old.insert(place + 1, lines)
        file.write_text("".join(old), encoding="utf-8")

    def replace(self, path: str, old: str, new: str) -> None:
        """Change the only place in a file that holds these words."""
        before, found, after = (self.root / path).read_text(encoding="utf-8").partition(old)
        assert found
        assert old not in after
        (self.root / path).write_text(before + new + after, encoding="utf-8")

    def python(self, *arguments: object, folder: Path | None = None) -> str:
        """Run the interpreter on the copy, in its root by default; return what it printed."""
        env = {"PYTHONPATH": str(self.root / "src")}
        return python(*arguments, folder=folder or self.root, env=env).stdout

    def difftool(self, folder: Path, *lines: str) -> str:
        """Run command lines in a folder, one after another; return what they printed."""
        return self.python("-c", RUN, *lines, folder=folder)

    def test(self, *words: str) -> str:
        """Run tests of the copy; none, or one that fails, is an error. Return what pytest said."""
        return self.python("-m", "pytest", "-q", "-p", "no:cacheprovider", *words)

    def changed(self) -> set[str]:
        """Return the files that are new, or differ from the original's."""
        here = (path.relative_to(self.root) for path in self.root.rglob("*") if path.is_file())
        return {
            str(path)
            for path in here
            if path.suffix != ".pyc" and not _same(self.root / path, self._original / path)
        }

    def added(self, path: str) -> list[str]:
        """Return the lines that a file has more than the original, which has no others."""
        old, new = (
            (root / path).read_text(encoding="utf-8").splitlines()
            for root in (self._original, self.root)
        )
        differences = list(ndiff(old, new))
        assert not [line for line in differences if line.startswith("- ")]
        return [line[2:].strip() for line in differences if line.startswith("+ ")]


def _same(one: Path, other: Path) -> bool:
    return other.is_file() and one.read_bytes() == other.read_bytes()


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project that nothing changes."""
    root = tmp_path_factory.mktemp("original")

    def skip(folder: str, names: list[str]) -> set[str]:
        inside = Path(folder).relative_to(ROOT)
        # Compiled files are taken along, but not those that another process is just writing.
        return {name for name in names if ".pyc." in name or str(inside / name) in LINKED}

    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, root / name, ignore=skip)
        else:
            shutil.copy2(ROOT / name, root / name)
    for path in LINKED:
        (root / path).symlink_to(ROOT / path)
    return root


@pytest.fixture(scope="module")
def project(original: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A copy of the project for the examples of one file."""
    root = tmp_path_factory.mktemp("project")
    shutil.copytree(original, root, symlinks=True, dirs_exist_ok=True)
    return Project(root, original)
