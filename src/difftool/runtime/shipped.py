"""Find and open bundles, by folder or by the name of a shipped model."""

import os
from pathlib import Path
from typing import Final

from difftool.bundle import Bundle, Limits, read_bundle
from difftool.errors import ArtefactError, UsageError

MODELS: Final = Path(__file__).parent.parent / "models"


def shipped_models() -> list[str]:
    """Return the names of the models that come with the package."""
    return sorted(folder.name for folder in MODELS.glob("[!.]*/")) if MODELS.is_dir() else []


def find_bundle(model: Path | str) -> Path:
    """Return the folder of a bundle given by path or shipped name."""
    if isinstance(model, str) and model in shipped_models():
        return MODELS / model
    if not os.path.exists(model):  # Path.exists fails for a name that no file can have
        raise ArtefactError(
            f"no bundle at {model}, and no shipped model of that name",
            f"shipped: {', '.join(shipped_models()) or 'none'}",
            code="bundle-missing",
        )
    return Path(model)


def open_bundle(bundle: Bundle | Path | str, *, limits: Limits | None = None) -> Bundle:
    """Return an opened bundle: the one given, or that of a folder or of a shipped model's name.

    Raises:
        ArtefactError: there is no such bundle, or its files are not what its manifest says.
    """
    return bundle if isinstance(bundle, Bundle) else read_bundle(find_bundle(bundle), limits=limits)


def require_own(bundle: Bundle) -> None:
    """Raise UsageError for a shipped model: nothing is written into it."""
    if any(find_bundle(name).samefile(bundle.path) for name in shipped_models()):
        raise UsageError(
            f"{bundle.path.name} comes with difftool and stays as it is",
            "copy its folder, and use the copy",
        )
