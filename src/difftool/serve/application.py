"""The ASGI application: its routes, and around them keys, errors, one line of log a request."""

import hashlib
import hmac
import json
import logging
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import cached_property, partial
from typing import Any, Final

from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response
from starlette.routing import Match, Route, Router
from starlette.types import Message, Receive, Scope, Send

from difftool.log import logger
from difftool.runtime import Model
from difftool.serve import described, drawing, kserve, openapi, page
from difftool.serve.metrics import Metrics
from difftool.serve.problems import Problem, as_problem
from difftool.serve.service import Disconnected, Service
from difftool.serve.settings import ServeSettings
from difftool.serve.tracing import Span

_ID: Final = re.compile(rb"[A-Za-z0-9._-]{1,64}")
# For who has no key: probes, and the page, which asks for one.
_OPEN: Final = ("/health", "/ready", "/v2/health/live", "/v2/health/ready", "/", "/page/{file}")
# Each open page asks for these again and again. The metrics count them, and the log has those that
# fail.
_QUIET: Final = ("/v1/status",)
_GONE: Final = 499  # what the log and the metrics say of a client that did not wait

_log = logger(__name__)


class Application:
    """An ASGI application that draws from models, by name.

    It can be mounted in another application. Whoever runs it calls `service.drain` and
    `service.close` at its end; `difftool.serve.serve` does. If there are several, `elsewhere`
    cancels a request of the others by its id; it tells if it had ended, or None if none has it.

    Examples:
        >>> from difftool.serve import Application
        >>> application = Application({"digits": difftool.load("ddpm-mnist")})
    """

    def __init__(
        self,
        models: Mapping[str, Model],
        settings: ServeSettings | None = None,
        *,
        elsewhere: Callable[[str], Awaitable[bool | None]] | None = None,
    ) -> None:
        self.service = Service(models, settings or ServeSettings())
        self._elsewhere = elsewhere
        self.metrics = Metrics(self.service)
        self._keys = [_digest(key.encode()) for key in self.service.settings.keys]
        self.router = Router(
            [
                Route("/v1/images/generations", _Endpoint(self._images), methods=["POST"]),
                Route("/v1/samples", _Endpoint(self._samples), methods=["POST"]),
                Route("/v1/models", _Endpoint(self._models), methods=["GET"]),
                Route("/v1/models/{name}", _Endpoint(self._model), methods=["GET"]),
                Route("/v1/requests/{id}", _Endpoint(self._cancel), methods=["DELETE"]),
                Route("/v1/samplers", _Endpoint(self._samplers), methods=["GET"]),
                Route("/v1/status", _Endpoint(self._status), methods=["GET"]),
                Route("/health", _Endpoint(self._health), methods=["GET"]),
                Route("/ready", _Endpoint(self._ready), methods=["GET"]),
                Route("/metrics", _Endpoint(self._metrics), methods=["GET"]),
                Route("/openapi.json", _Endpoint(self._openapi), methods=["GET"]),
                Route("/", _Endpoint(page.index), methods=["GET"]),
                Route("/page/{file}", _Endpoint(page.file), methods=["GET"]),
                *(
                    Route(path, _Endpoint(partial(answer, self.service)), methods=[method])
                    for method, path, answer in kserve.ROUTES
                ),
            ],
            redirect_slashes=False,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; errors become JSON, and everything is counted and logged once."""
        if scope["type"] != "http":
            await self.router(scope, receive, send)
            return
        headers = dict(scope["headers"])
        id, begin, status = _id_of(headers), time.monotonic(), _GONE
        span = Span(headers)

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", id.encode())]
            await send(message)

        # With an "app" the router raises what it would otherwise answer in plain text.
        scope = {**scope, "app": self, "request_id": id}
        code, route = "", self._route(scope)
        try:
            if route not in _OPEN:
                self._require_key(headers.get(b"authorization", b""))
            await self.router(scope, receive, sending)
        except (Disconnected, ClientDisconnect):
            code = "disconnected"
        except Exception as error:
            problem = as_problem(error)
            code = problem.code
            if status != _GONE:  # half of an answer was sent: cut the connection
                raise
            path = scope["path"].removeprefix(scope.get("root_path", ""))
            line = path == "/v2" or path.startswith("/v2/")
            await problem.response(id, line=line)(scope, receive, sending)
        finally:
            seconds = time.monotonic() - begin
            self.metrics.count(route, status, seconds)
            said = {"id": id, "method": scope["method"][:16], "route": route}
            drawn = scope["drawn"].record() if "drawn" in scope else {}
            outcome = {"status": status, "code": code, "seconds": round(seconds, 6)}
            span.end({**drawn, **said, **outcome})
            level = logging.DEBUG if route in _QUIET and status == 200 else logging.INFO
            _log.log(level, "%s", json.dumps({**drawn, **said, **outcome}))

    def _route(self, scope: Scope) -> str:
        """Return the pattern of a request's route; whatever else is asked for is one route."""
        for route in self.router.routes:
            if isinstance(route, Route) and route.matches(scope)[0] is not Match.NONE:
                return route.path
        return "other"

    async def _images(self, scope: Scope, receive: Receive, send: Send) -> None:
        await drawing.images(self.service, scope["request_id"], scope, receive, send)

    async def _samples(self, scope: Scope, receive: Receive, send: Send) -> None:
        await drawing.samples(self.service, scope["request_id"], scope, receive, send)

    async def _models(self, scope: Scope, receive: Receive, send: Send) -> None:
        found = [described.model(*item) for item in self.service.models.items()]
        await JSONResponse({"object": "list", "data": found})(scope, receive, send)

    async def _model(self, scope: Scope, receive: Receive, send: Send) -> None:
        name = self.service.find(scope["path_params"]["name"])
        found = described.model(name, self.service.models[name])
        await JSONResponse(found)(scope, receive, send)

    async def _cancel(self, scope: Scope, receive: Receive, send: Send) -> None:
        id = scope["path_params"]["id"]
        found = None
        if self._elsewhere is not None and not self.service.has(id):
            found = await self._elsewhere(id)
        said = {"id": id, "cancelled": self.service.cancel(id) if found is None else found}
        await JSONResponse(said)(scope, receive, send)

    @cached_property
    def _description(self) -> dict[str, Any]:
        return openapi.describe(self.service)

    async def _openapi(self, scope: Scope, receive: Receive, send: Send) -> None:
        await JSONResponse(self._description)(scope, receive, send)

    async def _samplers(self, scope: Scope, receive: Receive, send: Send) -> None:
        found = {"object": "list", "data": described.samplers()}
        await JSONResponse(found)(scope, receive, send)

    async def _status(self, scope: Scope, receive: Receive, send: Send) -> None:
        await JSONResponse(described.status(self.service))(scope, receive, send)

    async def _health(self, scope: Scope, receive: Receive, send: Send) -> None:
        await JSONResponse({"status": "ok"})(scope, receive, send)

    async def _ready(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.service.require_ready()
        await JSONResponse({"status": "ready"})(scope, receive, send)

    async def _metrics(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = "text/plain; version=0.0.4; charset=utf-8"
        await Response(self.metrics.text(), media_type=kind)(scope, receive, send)

    def _require_key(self, header: bytes) -> None:
        scheme, _, key = header.partition(b" ")
        sent = _digest(key.strip()) if scheme.lower() == b"bearer" else b""
        # All are compared, so that the time tells nothing.
        if self._keys and not sum(hmac.compare_digest(sent, known) for known in self._keys):
            raise Problem(401, "no-key", "no key, or a wrong one", "authorization: Bearer KEY")


class _Endpoint:
    """What a Route takes for an application, where a function would be given a Request."""

    def __init__(self, answer: Any) -> None:
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._answer(scope, receive, send)


def _id_of(headers: Mapping[bytes, bytes]) -> str:
    """Return the id that the client chose, or a new one."""
    sent = headers.get(b"x-request-id", b"")
    return sent.decode() if _ID.fullmatch(sent) else secrets.token_hex(16)


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
