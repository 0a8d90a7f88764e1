"""The page at /: its files as they lie in the package, under a policy that allows nothing else."""

import hashlib
from functools import cache
from pathlib import Path
from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

_FOLDER: Final = Path(__file__).parent / "page"
_INDEX: Final = "index.html"
# Not guessed: with nosniff a browser runs no module of another type.
_TYPES: Final = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
_POLICY: Final = (
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "img-src 'self' blob: data:",
    "connect-src 'self'",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
)
_HEADERS: Final = {
    "content-security-policy": "; ".join(_POLICY),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",  # a browser asks each time if its copy is still right
}

# By name. Nothing else is ever looked up, so no name leads out of the folder.
FILES: Final = {
    file.name: file
    for file in sorted(_FOLDER.iterdir())
    if file.suffix in _TYPES and file.name != _INDEX
}


async def index(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer GET /."""
    await _send(_FOLDER / _INDEX, scope, receive, send)


async def file(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer GET /page/{file}."""
    name = scope["path_params"]["file"]
    if name not in FILES:
        raise HTTPException(404)
    await _send(FILES[name], scope, receive, send)


async def _send(path: Path, scope: Scope, receive: Receive, send: Send) -> None:
    """Send a file, or 304 if the client has it."""
    body, tag = _read(path)
    headers = {**_HEADERS, "etag": tag}
    known = Request(scope).headers.get("if-none-match", "")
    # A proxy that compresses makes a tag weak.
    if tag in [each.strip().removeprefix("W/") for each in known.split(",")]:
        answer = Response(status_code=304, headers=headers)
    else:
        kind = f"{_TYPES[path.suffix]}; charset=utf-8"
        answer = Response(body, headers=headers, media_type=kind)
    await answer(scope, receive, send)


@cache
def _read(path: Path) -> tuple[bytes, str]:
    """Return a file and its entity tag."""
    body = path.read_bytes()
    return body, f'"{hashlib.sha256(body).hexdigest()[:32]}"'
