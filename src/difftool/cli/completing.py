"""The values that a shell offers for options and arguments; it adds files by itself."""

from collections.abc import Iterable


def models(incomplete: str) -> list[str]:
    """Return the shipped models that a word may become."""
    from difftool.runtime import shipped_models

    return _beginning(shipped_models(), incomplete)


def samplers(incomplete: str) -> list[str]:
    """Return the samplers that a word may become."""
    from difftool.diffusion import SAMPLERS

    return _beginning(SAMPLERS, incomplete)


def backends(incomplete: str) -> list[str]:
    """Return the backends that a word may become."""
    from difftool.runtime import backend_names

    return _beginning(backend_names(), incomplete)


def _beginning(words: Iterable[str], incomplete: str) -> list[str]:
    return [word for word in words if word.startswith(incomplete)]
