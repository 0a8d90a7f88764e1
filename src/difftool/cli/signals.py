"""Ctrl-C and SIGTERM: both end a command, and what is half-done is cleaned up on the way out.

Little is imported here: until the handlers stand, a signal ends the process wherever it is.
"""

import signal
import sys
from types import FrameType


class Signals:
    """The signals that end a command; `came` says whether there was one.

    Once they are `raised`, the first becomes a KeyboardInterrupt. A further one does only while no
    exception is handled: so nothing disturbs the clean-up after the first, and if a library has
    swallowed that one the next stops it. A library may also turn it into something else: one whose
    import ends early is said not to be there. A host's own handlers are left alone.
    """

    def __init__(self) -> None:
        self.came = False
        self.raised = False
        self._before: dict[int, object] = {}

    def install(self) -> None:
        """From now on signals are remembered."""
        defaults = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
        for number, handler in defaults.items():
            if signal.getsignal(number) is handler:
                try:
                    signal.signal(number, self._take)
                except ValueError:  # a thread other than the main one gets no signals
                    return
                self._before[number] = handler

    def restore(self) -> None:
        """Let signals do what they did before."""
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def ignore(self) -> None:
        """Let signals do nothing for as long as the process lasts."""
        for number in self._before:
            signal.signal(number, signal.SIG_IGN)

    def begin(self) -> None:
        """From now on signals raise KeyboardInterrupt, as one does that came already."""
        self.raised = True
        if self.came:
            raise KeyboardInterrupt

    def _take(self, number: int, frame: FrameType | None) -> None:
        first, self.came = not self.came, True
        if self.raised and (first or sys.exception() is None):
            raise KeyboardInterrupt
