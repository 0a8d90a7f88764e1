"""Ctrl-C and SIGTERM: both end a command, and what is half-done is cleaned up on the way out."""

import signal
import threading
from types import FrameType
from typing import NoReturn, Self


class Signals:
    """Within the block both raise KeyboardInterrupt, and `came` remembers it.

    A library that is interrupted may raise something else: one whose import ends early is said not
    to be there. A host's own handlers are left alone.
    """

    def __init__(self) -> None:
        self.came = False

    def __enter__(self) -> Self:
        defaults = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
        ours = threading.current_thread() is threading.main_thread()
        self._before = {
            number: handler
            for number, handler in defaults.items()
            if ours and signal.getsignal(number) is handler
        }
        for number in self._before:
            signal.signal(number, self._interrupt)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _interrupt(self, number: int, frame: FrameType | None) -> NoReturn:
        self.came = True
        raise KeyboardInterrupt
