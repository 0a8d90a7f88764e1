"""Undoing what was begun, whatever ends it, and Ctrl-C above all."""

import contextlib
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def undoing(undo: Callable[[], None]) -> Iterator[None]:
    """Undo what a block did if it fails, and again if Ctrl-C has cut the undoing short.

    What cannot be undone stays: the error at hand matters more.
    """
    try:
        try:
            yield
        except BaseException:
            with contextlib.suppress(OSError):
                undo()
            raise
    except KeyboardInterrupt:
        with contextlib.suppress(OSError):
            undo()
        raise
