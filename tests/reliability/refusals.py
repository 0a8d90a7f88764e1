"""Check that a refusal is a DifftoolError, in one short line and a hint."""

from collections.abc import Callable

from difftool.errors import MOST_CHARACTERS, DifftoolError


def refusal(action: Callable[[], object]) -> DifftoolError | None:
    """Return how an action is refused, if it is; AssertionError if it ends in another way."""
    try:
        action()
    except DifftoolError as error:
        for text in (error.message, error.hint):
            assert len(text.splitlines()) <= 1, text
            assert len(text) <= MOST_CHARACTERS, f"{len(text)} characters"
        return error
    except Exception as error:
        raise AssertionError(f"{type(error).__name__}: {error}") from error
    return None
