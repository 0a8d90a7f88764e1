"""Refusals and failures as HTTP statuses, each with a code, a message, a hint and the request."""

from collections.abc import Mapping
from concurrent.futures import CancelledError
from typing import Any, Final

from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from difftool.errors import Busy, DeadlineExceeded, DifftoolError, ResourceError, UsageError
from difftool.log import logger

RETRY_AFTER: Final = 1  # seconds; a sample leaves its slot, and so the queue moves, at any step
_CANCELLED: Final = 499  # no status of the standard, but what proxies log for a client that went
_MOST_FIELDS: Final = 5  # that one message names
_MOST_ERRORS: Final = 100

_log = logger(__name__)


class Problem(Exception):
    """An answer that is an error. `code` is a word for programs; `field` is where it is wrong."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        hint: str = "",
        field: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message
        self.hint, self.field, self.headers = hint, field, headers or {}

    def record(self, request_id: str) -> dict[str, Any]:
        """Return the error as JSON has it; `param` is the name that OpenAI's clients know."""
        error = {
            "code": self.code,
            "message": self.message,
            "hint": self.hint,
            "param": self.field,
            "request_id": request_id,
        }
        return {"error": error}

    def line(self) -> str:
        """Return the error as one line, for those who expect no more."""
        return f"{self.message}: {self.hint}" if self.hint else self.message

    def response(self, request_id: str, *, line: bool = False) -> JSONResponse:
        """Return the answer: a record, or a line as clients of the v2 protocol read it."""
        headers = dict(self.headers)
        if self.status in (429, 503):
            headers["retry-after"] = str(RETRY_AFTER)
        if self.status == 401:
            headers["www-authenticate"] = "Bearer"
        said = {"error": self.line()} if line else self.record(request_id)
        return JSONResponse(said, self.status, headers)


def cancelled() -> Problem:
    """Return the answer to a request that somebody cancelled."""
    return Problem(_CANCELLED, "cancelled", "the request was cancelled")


def not_ready(why: str) -> Problem:
    """Return the answer while nothing new can be drawn."""
    return Problem(503, "not-ready", why, "ask another server, or try again later")


def as_problem(error: BaseException) -> Problem:
    """Return the answer for what was raised on the way to a result."""
    match error:
        case Problem():
            return error
        case HTTPException():
            message = str(error.detail).lower()
            return Problem(
                error.status_code,
                message.replace(" ", "-"),
                message,
                "docs/serving.md lists all routes",
                headers=error.headers,  # of 405: the methods that there are
            )
        case ValidationError():
            return _invalid(error)
        case Busy():
            return Problem(429, "busy", error.message, "try again later")
        case DeadlineExceeded():
            return Problem(504, "deadline", error.message, "ask for less, or allow more time")
        case UsageError():
            return Problem(400, "invalid", error.message, error.hint)
        case ResourceError():
            return Problem(503, "no-memory", error.message, error.hint)
        case CancelledError():
            return cancelled()
        case DifftoolError():
            return Problem(500, error.code or "failed", error.message, error.hint)
    _log.error("a request failed", exc_info=error)
    return Problem(500, "failed", f"the server failed: {type(error).__name__}", "see its log")


def _invalid(error: ValidationError) -> Problem:
    """Return what is wrong with a body, without what it said."""
    if (count := error.error_count()) > _MOST_ERRORS:  # to list them would take seconds
        text = f"{count} values have another type or name than they should"
        return Problem(400, "invalid-field", text, "docs/serving.md lists all fields")
    found = error.errors(include_input=False, include_url=False, include_context=False)
    if found[0]["type"] == "json_invalid":
        return Problem(400, "invalid-json", "the body is not JSON", "send an object of fields")
    # A union names its choices after the field; the field says enough.
    fields = [str(each["loc"][0]) if each["loc"] else "body" for each in found]
    said = {name: each["msg"] for name, each in zip(fields, found, strict=True)}
    message = "; ".join(f"{name}: {text}" for name, text in list(said.items())[:_MOST_FIELDS])
    unknown = any(each["type"] == "extra_forbidden" for each in found)
    hint = "leave out unknown fields; docs/serving.md lists all" if unknown else "see the field"
    return Problem(400, "invalid-field", message[:700], hint, fields[0][:100])
