"""Models are prepared once, and made again only if something has changed."""

import pytest
from common.machine import ROOT
from common.models import SOURCES, digest


@pytest.mark.parametrize("pattern", SOURCES)
def test_the_sources_that_a_bundle_depends_on_are_there(pattern: str) -> None:
    assert list((ROOT / "src/difftool").glob(pattern))


def test_files_are_kept_under_the_digest_of_their_sources() -> None:
    assert digest() == digest()
    assert len(digest()) == 12
