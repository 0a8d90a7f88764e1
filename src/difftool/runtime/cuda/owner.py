"""The one thread that works on a device, whichever threads ask for it.

ONNX Runtime keeps a session's CUDA graphs by thread and forbids its runs on several, and CUDA's
current context is that of a thread. So no other thread ever touches a backend's stream or engine.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from difftool.errors import UsageError

T = TypeVar("T")


class Owner:
    """A thread that does what it is called for, in order. It ends when nobody holds this object."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "difftool-device")
        self._process = os.getpid()

    def call(self, work: Callable[[], T]) -> T:
        """Return what `work` returns on the thread, or raise what it raises; never from `work`.

        UsageError in a fork, which does not have the thread and would wait for ever.
        """
        if os.getpid() != self._process:
            raise UsageError(
                f"this device was opened in process {self._process}, of which this is a fork",
                "load the model in the child",
            )
        return self._thread.submit(work).result()
