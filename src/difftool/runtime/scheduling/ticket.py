"""The future of a request, and the previews of its samples."""

from collections import deque
from collections.abc import Generator
from concurrent.futures import Future
from dataclasses import dataclass
from threading import Lock
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from difftool.errors import UsageError
from difftool.log import logger

Floats = NDArray[np.float32]
What = Literal["x", "denoised"]

_log = logger(__name__)


@dataclass(frozen=True)
class Preview:
    """A sample after `step` of `steps` rows: `array` is float32 [*S], and `sample` its index."""

    sample: int
    step: int
    steps: int
    array: Floats


class Previews:
    """The previews of a request as they come, for one reader: `for` and `async for` both work.

    A slow reader loses the oldest previews, and holds nobody up. The iteration ends with the
    request, however that ends: `result` says how.
    """

    def __init__(self, what: What, most: int) -> None:
        self.what: What = what
        self._kept: deque[Preview] = deque(maxlen=most)
        self._over = False
        self._lock = Lock()
        self._news: Future[None] = Future()  # is done when there is something new to see

    def put(self, preview: Preview) -> None:
        """Show a preview."""
        with self._lock:
            self._kept.append(preview)
        self._wake()

    def end(self) -> None:
        """End the iteration, after the previews that are there."""
        self._over = True
        self._wake()

    def __iter__(self) -> "Previews":
        return self

    def __next__(self) -> Preview:
        while (found := self._take()) is None:
            if self._over_and_empty():
                raise StopIteration
            self._news.result()
        return found

    def __aiter__(self) -> "Previews":
        return self

    async def __anext__(self) -> Preview:
        import asyncio

        while (found := self._take()) is None:
            if self._over_and_empty():
                raise StopAsyncIteration
            await asyncio.wrap_future(self._news)
        return found

    def _take(self) -> Preview | None:
        with self._lock:
            if self._kept:
                return self._kept.popleft()
            if not self._over and self._news.done():
                self._news = Future()
        return None

    def _over_and_empty(self) -> bool:
        with self._lock:
            return self._over and not self._kept

    def _wake(self) -> None:
        with self._lock:
            # A task that was cancelled while it waited has cancelled its news.
            if not self._news.done() and self._news.set_running_or_notify_cancel():
                self._news.set_result(None)


class Ticket(Future[Floats]):
    """A request that was submitted: a future whose result is float32 [n, *S].

    It is a `concurrent.futures.Future`, and can also be awaited. `cancel` works until the result is
    there; the samples stop at the next step. A task that is cancelled while it awaits a ticket
    cancels the ticket; `asyncio.shield` prevents this. Callbacks of `add_done_callback` mostly run
    in the scheduler's thread, so they must not wait for another request.

    `result` raises what `Model.sample` would, and:

    - `DeadlineExceeded`: the deadline passed before the last sample was done.
    - `concurrent.futures.CancelledError`: it was cancelled, or the model closed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.readers: list[Previews] = []
        self.began: float | None = None
        """When its first sample got a slot, by `time.monotonic`."""
        self._keeps: object = None
        self.add_done_callback(_let_go)

    def keep(self, needed: object) -> None:
        """Keep an object alive until the request has ended."""
        self._keeps = needed
        if self.done():  # another thread may have ended it a moment ago
            self._keeps = None

    def settle(self, result: Floats | None = None, error: BaseException | None = None) -> None:
        """End with a result or an error, whatever a callback does; for the scheduler alone.

        A future logs the errors of its callbacks. But one that asks for the end of its thread, as
        `sys.exit` does, would here end the requests of all others.
        """
        try:
            if error is not None:
                self.set_exception(error)
            elif result is not None:
                self.set_result(result)
        except SystemExit:
            _log.exception("a callback of a request would end the scheduler's thread")
            for reader in self.readers:  # their callbacks come after that one
                reader.end()

    def stream(self, what: What = "denoised", *, most: int = 8) -> Previews:
        """Return the request's previews from now on, after every `request.every` rows.

        `most` of them are kept for a slow reader. Nothing is copied if nobody calls this.
        """
        if what not in get_args(What):
            raise UsageError(f"no previews of {what!r}", f"one of: {', '.join(get_args(What))}")
        if most < 1:
            raise UsageError(f"{most} previews for a slow reader", "keep at least 1")
        previews = Previews(what, most)
        self.readers.append(previews)
        self.add_done_callback(lambda _: previews.end())
        return previews

    def __await__(self) -> Generator[Any, None, Floats]:
        import asyncio

        return asyncio.wrap_future(self).__await__()


def _let_go(ticket: Future[Floats]) -> None:
    if isinstance(ticket, Ticket):
        ticket.keep(None)
