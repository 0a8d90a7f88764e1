"""The one thread that works on a device, whichever threads ask for it.

ONNX Runtime keeps a session's CUDA graphs by thread and forbids its runs on several, and CUDA's
current context is that of a thread. So no other thread ever touches a backend's stream or engine,
or frees what is on the device.
"""

import atexit
import os
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import Any, Final, TypeVar

from difftool.errors import UsageError

T = TypeVar("T")
Work = Callable[[], object]


def _nothing() -> None:
    pass


class Owner:
    """A thread that does what it is called for, in order.

    It ends when nobody holds this object, or when the interpreter ends, and does `at_end` last.
    """

    def __init__(self, at_end: Work = _nothing) -> None:
        self._process = os.getpid()
        # To put is safe in a finalizer, which may run at any moment, on any thread.
        self._mail: SimpleQueue[_Call | None] = SimpleQueue()
        self._over = threading.Event()
        # A daemon, so that a model that is held to the end keeps no interpreter from ending.
        self._thread = threading.Thread(
            target=_run, args=(self._mail, self._over, at_end), name="difftool-device", daemon=True
        )
        weakref.finalize(self, self._mail.put, None).atexit = False
        self._thread.start()
        _owners.add(self)

    def call(self, work: Callable[[], T]) -> T:
        """Return what `work` returns on the thread, or raise what it raises; never from `work`.

        UsageError in a fork, which does not have the thread and would wait for ever, and once the
        interpreter ends.
        """
        if os.getpid() != self._process:
            raise UsageError(
                f"this device was opened in process {self._process}, of which this is a fork",
                "load the model in the child",
            )
        result: Future[T] = Future()
        self._mail.put(_Call(work, result))
        if self._over.is_set():  # the thread may not have seen it
            _refuse(self._mail)
        return result.result()

    def close(self, timeout: float | None = None) -> None:
        """End the thread after the work so far, and wait for its end."""
        if os.getpid() == self._process:
            self._mail.put(None)
            self._thread.join(timeout)


class _Call:
    """Work that somebody waits for."""

    def __init__(self, work: Callable[[], Any], result: "Future[Any]") -> None:
        self._work, self._result = work, result

    def __call__(self) -> None:
        try:
            found = self._work()
        except BaseException as error:  # whatever it is, it is the caller's
            self._result.set_exception(error)
        else:
            self._result.set_result(found)

    def refuse(self) -> None:
        """Raise UsageError in who waits."""
        self._result.set_exception(UsageError("the device is closed, as the interpreter ends"))


def _run(mail: "SimpleQueue[_Call | None]", over: threading.Event, at_end: Work) -> None:
    while (call := mail.get()) is not None:
        call()
        del call  # while the thread waits, it keeps nothing of the last call alive
    over.set()
    _refuse(mail)
    at_end()


def _refuse(mail: "SimpleQueue[_Call | None]") -> None:
    """Let nobody wait for a thread that has ended."""
    while True:
        try:
            left = mail.get_nowait()
        except Empty:
            return
        if left is not None:
            left.refuse()


_owners: "weakref.WeakSet[Owner]" = weakref.WeakSet()
_AT_EXIT: Final = 10.0  # seconds for the work of one device


@atexit.register
def _close_all() -> None:
    """Wait for what devices do: a thread that is killed within a library may crash it."""
    for owner in tuple(_owners):
        owner.close(_AT_EXIT)
