"""Undo work that was begun, whatever interrupts it, Ctrl-C above all."""

import contextlib
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def undoing(undo: Callable[[], None]) -> Iterator[None]:
    """Run `undo` if a block fails, and once more if Ctrl-C interrupts `undo` itself.

    OSErrors of `undo` are dropped, since the block's own error matters more.
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
