"""What Prometheus reads of a server."""

from collections.abc import Iterator
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from difftool.serve.service import Service

_OUTCOMES: Final = ("accepted", "ok", "cancelled", "timeout", "failed", "refused")
_SECONDS: Final = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300)


class Metrics:
    """Counts of answers by route and status, their seconds, and what the schedulers count."""

    def __init__(self, service: Service) -> None:
        self._registry = CollectorRegistry()
        self._answers = Counter(
            "difftool_http_answers", "Answers", ["route", "status"], registry=self._registry
        )
        self._seconds = Histogram(
            "difftool_http_seconds",
            "Seconds from a request's first byte to its answer's last",
            ["route"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._registry.register(_Schedulers(service))

    def count(self, route: str, status: int, seconds: float) -> None:
        """Count an answer. Routes are few, or else whoever asks could fill the memory."""
        self._answers.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def text(self) -> bytes:
        """Return all of it in Prometheus' text format."""
        return generate_latest(self._registry)


class _Schedulers(Collector):
    def __init__(self, service: Service) -> None:
        self._service = service

    def collect(self) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "difftool_requests",
            "Requests of a model's scheduler; accepted are all but the refused",
            labels=["model", "outcome"],
        )
        pending = GaugeMetricFamily(
            "difftool_requests_pending", "Requests that have not ended", labels=["model"]
        )
        running = GaugeMetricFamily(
            "difftool_samples_running", "Samples on their way", labels=["model"]
        )
        for name, runner in self._service.runners.items():
            counts = runner.counts
            for outcome in _OUTCOMES:
                requests.add_metric([name, outcome], getattr(counts, outcome))
            pending.add_metric([name], counts.pending)
            running.add_metric([name], runner.occupied)
        yield from (requests, pending, running)
