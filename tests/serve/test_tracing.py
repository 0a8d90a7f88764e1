"""A request is a span of OpenTelemetry, if that is installed, and nothing if it is not."""

from collections.abc import Iterator
from typing import Any

import pytest

from difftool.runtime import Model
from tests.fresh import python
from tests.serve.conftest import client_of

pytest.importorskip("opentelemetry.sdk")

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import (
    InMemorySpanExporter,
)

SAMPLES = "/v1/samples"
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"  # of W3C's trace context


@pytest.fixture(scope="module")
def exporter() -> InMemorySpanExporter:
    """Set up the SDK, which a process can do only once."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    return exporter


@pytest.fixture
def spans(exporter: InMemorySpanExporter) -> Iterator[Any]:
    exporter.clear()
    yield exporter.get_finished_spans
    exporter.clear()


def test_a_span_says_what_was_drawn(digits: Model, spans: Any) -> None:
    fields = {"num_inference_steps": 2, "n": 3, "seed": 1}
    headers = {"traceparent": PARENT, "x-request-id": "mine"}
    client = client_of(digits=digits)
    assert client("POST", SAMPLES, json=fields, headers=headers).status_code == 200
    (span,) = spans()
    assert span.name == f"POST {SAMPLES}"
    assert span.kind is trace.SpanKind.SERVER
    assert f"{span.context.trace_id:032x}-{span.parent.span_id:016x}" == PARENT[3:-3]
    told = dict(span.attributes)
    assert told["http.response.status_code"] == 200
    assert (told["difftool.model"], told["difftool.n"], told["difftool.id"]) == (
        "digits",
        3,
        "mine",
    )
    assert 0 <= told["difftool.queue_seconds"] <= told["difftool.seconds"]
    assert span.status.status_code is trace.StatusCode.UNSET


def test_a_span_says_what_went_wrong(digits: Model, spans: Any) -> None:
    client = client_of(digits=digits)
    client("GET", "/secret/path")
    client.post(SAMPLES, deadline=1e-9, num_inference_steps=2)
    missing, late = spans()
    assert missing.name == "GET other"
    assert missing.status.status_code is trace.StatusCode.UNSET
    assert late.attributes["http.response.status_code"] == 504
    assert (late.status.status_code, late.status.description) == (
        trace.StatusCode.ERROR,
        "deadline",
    )


def test_without_opentelemetry() -> None:
    python(
        "-c",
        "import sys; sys.modules['opentelemetry'] = None\n"
        "from difftool.serve.tracing import Span\n"
        "Span({b'traceparent': b'x'}).end({})",
    )
