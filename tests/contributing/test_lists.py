"""The lists of CONTRIBUTING.md name files that there are; see the other files here for examples."""

import re

import pytest

from tests.contributing.conftest import NAME, ROOT, listed

KINDS = ("A sampler", "A network", "A backend", "An importer", "A command", "An option")


@pytest.mark.parametrize("kind", KINDS)
def test_a_list_names_files_that_there_are(kind: str) -> None:
    files = listed(kind)
    assert any(file.startswith("src/difftool/") for file in files)
    for file in files:
        assert (ROOT / file).is_file() != (NAME in file), file


def test_every_file_that_is_named_is_there() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:benchmarks|docs|examples|src|tests)/[^`]*\.\w+)`", text))
    assert len(named) > 20
    for file in named:
        assert (ROOT / file).is_file() or "NAME" in file, file
