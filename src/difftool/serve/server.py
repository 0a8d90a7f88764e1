"""Run the application in a process of its own, until a signal ends it."""

import asyncio
import contextlib
import ipaddress
import json
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from difftool.errors import ResourceError, UsageError
from difftool.files import read_limited
from difftool.log import logger
from difftool.runtime import Model
from difftool.serve.application import Application
from difftool.serve.service import Service

_LEAST_KEY: Final = 16  # characters
_LAST_ANSWERS: Final = 10  # seconds to send what is done when the rest was cancelled
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
# A model's name -> the model as it is now; None if it is still the same.
Reload = Callable[[str], Model | None]

_log = logger(__name__)


def serve(
    application: Application,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    drain_timeout: float = 30.0,
    say: Callable[[str], None] = lambda line: None,
    reload: Reload | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT; call this from the main thread.

    New requests are then refused and the others run to their ends, for at most `drain_timeout`
    seconds; a second signal cancels them. `say` is told the address, as a line of JSON. Port 0 is
    any free one. If there is a `reload`, SIGHUP calls it for each model, and does nothing else.

    Raises:
        ResourceError: nobody can listen at this address.
    """
    with listening(host, port) as listener:
        address = listener.getsockname()
        where = f"[{host}]" if ":" in host else host
        say(json.dumps({"listening": f"http://{where}:{address[1]}"}))
        before = {number: signal.getsignal(number) for number in _SIGNALS}
        try:
            asyncio.run(_serve(application, listener, drain_timeout, reload))
        finally:
            application.service.close()
            for number, handler in before.items():
                signal.signal(number, handler)


def require_safe(host: str, *, keys: tuple[str, ...], insecure: bool) -> None:
    """Raise UsageError if others than this machine could reach a server without keys."""
    try:
        loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name, which may lead anywhere
        loopback = False
    if not (loopback or keys or insecure):
        raise UsageError(
            f"everybody who reaches {host} could use this server",
            "give an `api_key_file`, or say `insecure` if something else keeps others out",
        )


def read_keys(path: Path) -> tuple[str, ...]:
    """Return the keys of a file, one a line; lines that begin with # are left out.

    UsageError if there is none, or one is short or not of printable ASCII.
    """
    lines = read_limited(path).decode("utf-8", "replace").splitlines()
    keys = tuple(line.strip() for line in lines if line.strip() and not line.startswith("#"))
    if not keys:
        raise UsageError(f"{path} has no key", "write one a line")
    if any(len(key) < _LEAST_KEY or not key.isascii() or not key.isprintable() for key in keys):
        raise UsageError(
            f"a key in {path} is no word of at least {_LEAST_KEY} ASCII characters",
            "make one: openssl rand -hex 32",
        )
    return keys


class _Server(uvicorn.Server):
    """uvicorn would end by the signal that it got; ours is exit code 0."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def reload_models(service: Service, reload: Reload) -> None:
    """Load models again. One that cannot be loaded is served as it was."""
    for name in service.models:
        try:
            model = await asyncio.to_thread(reload, name)
        except Exception as error:  # whatever it is, the others go on
            _log.warning("%s is served as it was", name, exc_info=error)
            continue
        if model is not None:
            service.replace(name, model)
            said = {"reloaded": name, "bundle": model.bundle.manifest.digest}
            _log.info("%s", json.dumps(said))


def _impatient(seconds: float) -> type[H11Protocol]:
    """Return a protocol that closes a connection which asks for nothing for so many seconds.

    uvicorn closes one that is silent after an answer. This one closes those, too, that send the
    head of a request byte by byte, or the rest of a body that was refused.
    """

    class Impatient(H11Protocol):
        waiting: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self.watch()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self.watch()

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            self.forget()

        def watch(self) -> None:
            if self.answers():
                self.forget()
            elif self.waiting is None:
                self.waiting = self.loop.call_later(seconds, self.give_up)

        def answers(self) -> bool:
            # There is no cycle before the first head.
            return not getattr(self.cycle, "response_complete", True)

        def forget(self) -> None:
            if self.waiting is not None:
                self.waiting.cancel()
                self.waiting = None

        def give_up(self) -> None:
            self.waiting = None
            if not self.answers():  # a request may have waited behind another
                self.transport.close()

    return Impatient


async def _serve(
    application: Application, listener: socket.socket, timeout: float, reload: Reload | None
) -> None:
    config = uvicorn.Config(
        application,
        log_config=None,
        access_log=False,
        lifespan="off",
        http=_impatient(application.service.settings.patience),
        ws="none",
        loop="asyncio",
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=_LAST_ANSWERS,
    )
    server, service = _Server(config), application.service
    assert service.runners  # they run before the first request comes
    ending: set[asyncio.Task[None]] = set()
    reloading: set[asyncio.Task[None]] = set()
    turn = asyncio.Lock()

    async def end() -> None:
        await service.drain(timeout)
        server.should_exit = True

    def on_signal() -> None:
        if ending:
            service.cancel_all()
        else:
            ending.add(asyncio.create_task(end()))

    async def load_again(reload: Reload) -> None:
        async with turn:
            await reload_models(service, reload)

    def on_hangup(reload: Reload) -> None:
        task = asyncio.create_task(load_again(reload))
        reloading.add(task)  # a task that nothing refers to may be collected
        task.add_done_callback(reloading.discard)

    loop = asyncio.get_running_loop()
    for number in _SIGNALS:
        loop.add_signal_handler(number, on_signal)
    if reload is not None:
        loop.add_signal_handler(signal.SIGHUP, on_hangup, reload)
    await server.serve([listener])


def listening(host: str, port: int) -> socket.socket:
    """Listen at an address; ResourceError if nobody can."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        made = socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        text = f"cannot listen at {host}, port {port}: {error}"
        raise ResourceError(text, "choose another `host` or `port`") from error
    # asyncio sends at once only on sockets that name TCP. On others the body of an answer waits for
    # the client to acknowledge its head: 40 ms.
    return socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP, fileno=made.detach())
