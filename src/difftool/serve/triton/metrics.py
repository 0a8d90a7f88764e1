"""What Triton's own /metrics says of a model's scheduler."""

from typing import Any, Final

from difftool.runtime import Runner

_OUTCOMES: Final = ("accepted", "ok", "cancelled", "timeout", "failed", "refused")


class Metrics:
    """The counts of a scheduler as metrics of Triton; none if Triton was started without them."""

    def __init__(self, pb: Any, runner: Runner, labels: dict[str, str]) -> None:
        self._runner = runner
        self._counters: dict[str, Any] = {}
        self._gauges: dict[str, Any] = {}
        self._told: dict[str, int] = {}

        def family(name: str, text: str, kind: Any) -> Any:
            return pb.MetricFamily(name=f"difftool_{name}", description=text, kind=kind)

        counter, gauge = pb.MetricFamily.COUNTER, pb.MetricFamily.GAUGE
        try:
            # A family that is gone takes its metrics with it.
            self._families = [
                family("requests", "Requests of a model's scheduler, by their ends", counter),
                family("steps", "Calls of the network", counter),
                family("sample_steps", "Samples in all these calls", counter),
                family("requests_pending", "Requests that have not ended", gauge),
                family("samples_running", "Samples on their way", gauge),
            ]
        except Exception:  # Triton without metrics refuses, by an error that has no name in Python
            return
        requests, steps, sample_steps, pending, running = self._families
        for outcome in _OUTCOMES:
            self._counters[outcome] = requests.Metric(labels={**labels, "outcome": outcome})
        self._counters["steps"] = steps.Metric(labels=labels)
        self._counters["sample_steps"] = sample_steps.Metric(labels=labels)
        self._gauges["pending"] = pending.Metric(labels=labels)
        self._gauges["running"] = running.Metric(labels=labels)
        self.tell()

    def tell(self) -> None:
        """Tell Triton what the scheduler has counted since it was last told."""
        counts, load = self._runner.counts, self._runner.load
        now = {outcome: getattr(counts, outcome) for outcome in _OUTCOMES}
        now |= {"steps": load.steps, "sample_steps": load.sample_steps}
        for name, metric in self._counters.items():
            if more := now[name] - self._told.get(name, 0):
                metric.increment(more)
        self._told = now
        for name, value in (("pending", counts.pending), ("running", load.running)):
            if name in self._gauges:
                self._gauges[name].set(value)
