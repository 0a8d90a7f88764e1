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
            try:
                undo()
            except OSError as error:
                # Ctrl-C between closing a folder and noting that makes shutil close it twice: the
                # OSError of that hides the interrupt, and the work is only half undone.
                if isinstance(error.__context__, KeyboardInterrupt):
                    raise error.__context__ from None
            raise
    except KeyboardInterrupt:
        with contextlib.suppress(OSError):
            undo()
        raise
