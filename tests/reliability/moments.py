"""Moments of a run, told by the calls that its main thread has made: no clock is looked at.

A moment lies at the same place in the run on an idle machine and on a loaded one.
"""

import inspect
import sys
from collections.abc import Callable, Mapping
from types import FrameType, TracebackType
from typing import Any


class Calls:
    """Counts the calls of Python functions in a block, from 1 on, but for those of generators.

    At a number of `moments` it does `act` with what stands there. A generator may be called by a
    throw into it, and there Python handles no signal.
    """

    def __init__(
        self, moments: Mapping[int, Any] | None = None, act: Callable[[Any], object] | None = None
    ) -> None:
        self.count, self._moments, self._act = 0, moments or {}, act

    def __enter__(self) -> "Calls":
        sys.settrace(self._see)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        sys.settrace(None)
        sys.setprofile(None)

    def _see(self, frame: FrameType, event: str, argument: Any) -> None:
        if event != "call" or frame.f_code.co_flags & inspect.CO_GENERATOR:
            return
        self.count += 1
        if self.count in self._moments and self._act is not None:
            # Python ends a trace that raises, as one does that a signal interrupts. A profile
            # then goes on counting, to the next moment.
            sys.settrace(None)
            sys.setprofile(self._see)
            self._act(self._moments[self.count])
