"""Ctrl-C and SIGTERM. Both end a command, which cleans up its unfinished work first.

This file imports little, because a signal that comes before the handlers are installed ends the
process at once.
"""

import signal
import sys
from types import FrameType


class Signals:
    """The signals that end a command. `came` is True once there was one.

    While `raised` is True, the first signal becomes a KeyboardInterrupt. A later one becomes one
    only while no exception is handled. So no signal disturbs the clean-up after the first, and if
    a library has swallowed the first, the second still ends the command. Look at `came` too: a
    library can turn the interrupt into another error, such as a failed import. Handlers that
    another program has installed are left alone.
    """

    def __init__(self) -> None:
        self.came = False
        self.raised = False
        self._before: dict[int, object] = {}

    def install(self) -> None:
        """Remember signals from now on."""
        defaults = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
        for number, handler in defaults.items():
            if signal.getsignal(number) is handler:
                try:
                    signal.signal(number, self._take)
                except ValueError:  # a thread other than the main one gets no signals
                    return
                self._before[number] = handler

    def restore(self) -> None:
        """Give signals the handlers that they had before."""
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def ignore(self) -> None:
        """Ignore signals until the process ends."""
        for number in self._before:
            signal.signal(number, signal.SIG_IGN)

    def begin(self) -> None:
        """Raise KeyboardInterrupt for signals from now on, and at once if one came already."""
        self.raised = True
        if self.came:
            raise KeyboardInterrupt

    def _take(self, number: int, frame: FrameType | None) -> None:
        first, self.came = not self.came, True
        if self.raised and (first or sys.exception() is None):
            raise KeyboardInterrupt
