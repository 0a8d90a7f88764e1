"""Spans of requests, if OpenTelemetry is installed. Its SDK, if any, says where they go."""

from collections.abc import Mapping
from typing import Any, Final

try:
    from opentelemetry import propagate, trace
except ImportError:
    trace = None  # type: ignore[assignment]

_TOLD: Final = ("id", "model", "program", "n", "seconds", "queue_seconds")


class Span:
    """The span of a request, as part of the trace that its headers name."""

    def __init__(self, headers: Mapping[bytes, bytes]) -> None:
        self._span = None
        if trace is not None:
            sent = {
                name.decode("latin-1"): text.decode("latin-1") for name, text in headers.items()
            }
            self._span = trace.get_tracer("difftool.serve").start_span(
                "request", propagate.extract(sent), trace.SpanKind.SERVER
            )

    def end(self, record: Mapping[str, Any]) -> None:
        """End the span with what the log says of the request."""
        if self._span is None:
            return
        self._span.update_name(f"{record['method']} {record['route']}")
        self._span.set_attribute("http.request.method", record["method"])
        self._span.set_attribute("http.route", record["route"])
        self._span.set_attribute("http.response.status_code", record["status"])
        for name in _TOLD:
            if name in record:
                self._span.set_attribute(f"difftool.{name}", record[name])
        if record["status"] >= 500:
            self._span.set_status(trace.StatusCode.ERROR, record["code"])
        self._span.end()
