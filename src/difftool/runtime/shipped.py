"""A bundle by any of the names that people call it by."""

from pathlib import Path

from difftool.bundle import Bundle, Limits, read_bundle
from difftool.runtime.model import find_bundle


def open_bundle(bundle: Bundle | Path | str, *, limits: Limits | None = None) -> Bundle:
    """Return an opened bundle: the one given, or that of a folder or of a shipped model's name.

    Raises:
        ArtefactError: there is no such bundle, or its files are not what its manifest says.
    """
    return bundle if isinstance(bundle, Bundle) else read_bundle(find_bundle(bundle), limits=limits)
