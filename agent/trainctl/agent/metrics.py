"""What the agent tells Prometheus, in a registry of its own."""

from __future__ import annotations

import os
from collections import Counter as Tally
from collections.abc import Callable, Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, disable_created_metrics, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from trainctl.core.records.worker import WorkerObserved


class AgentMetrics:
    """All metrics of one agent. Labels name the job, never a rank or a node."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self.starts = self._counter("worker_starts", "Workers started.", "job_name")
        self.exits = self._counter("worker_exits", "Workers that ended.", "job_name", "kind")
        self.process_restarts = self._counter(
            "process_restarts", "Fork servers and collective stores started again.", "process"
        )
        self.heartbeats = self._counter("heartbeats", "Heartbeats sent to the controller.")
        self.reconnects = self._counter("reconnects", "Streams to the controller opened again.")
        self.refused_desired = self._counter("refused_desired", "Desired states of a former leader, refused.")
        self._gauge("rss_bytes", "Bytes of resident memory of the agent process.", resident_bytes)

    def count_exit(self, job_name: str, observed: WorkerObserved) -> None:
        """Counts the end of a worker by its kind: clean, error or signal."""
        code = observed.exit_code or 0
        kind = "clean" if code == 0 else ("signal" if code < 0 else "error")
        self.exits.labels(job_name, kind).inc()

    def watch(
        self,
        *,
        census: Callable[[], list[tuple[str, str]]],
        figures_pending: Callable[[], int],
        figures_dropped: Callable[[], int],
        log_bytes: Callable[[], int],
        log_lost_lines: Callable[[], int],
    ) -> None:
        """Registers what is read when somebody asks; ``census`` gives job name and phase of each worker."""
        self.registry.register(_Workers(census))
        self._gauge("figures_pending", "Step figures that wait for the controller.", figures_pending)
        counts = {
            "figures_dropped": ("Step figures dropped because too many waited.", figures_dropped),
            "log_bytes": ("Bytes of worker output written.", log_bytes),
            "log_lost_lines": ("Lines of worker output lost to disk errors.", log_lost_lines),
        }
        self.registry.register(_Counts(counts))

    def serve(self, address: str, port: int) -> int:
        """Serves ``/metrics`` on ``address``; port 0 takes a free one. Returns the port.

        Raises:
            OSError: the port is taken.
        """
        server, _ = start_http_server(port, address, self.registry)
        return int(server.server_port)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"trainctl_agent_{name}_total", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, read: Callable[[], float]) -> None:
        Gauge(f"trainctl_agent_{name}", text, registry=self.registry).set_function(read)


class _Workers(Collector):
    """Counts workers at the time of asking, so that the phases of ended jobs vanish."""

    def __init__(self, census: Callable[[], list[tuple[str, str]]]) -> None:
        self._census = census

    def collect(self) -> Iterable[Metric]:
        family = GaugeMetricFamily(
            "trainctl_agent_workers", "Workers of this agent by phase.", labels=["job_name", "phase"]
        )
        for labels, count in Tally(self._census()).items():
            family.add_metric(list(labels), count)
        yield family


class _Counts(Collector):
    """Counters that others keep."""

    def __init__(self, counts: Mapping[str, tuple[str, Callable[[], int]]]) -> None:
        self._counts = counts

    def collect(self) -> Iterable[Metric]:
        for name, (text, read) in self._counts.items():
            yield CounterMetricFamily(f"trainctl_agent_{name}", text, value=read())


def resident_bytes() -> float:
    """Resident memory of this process."""
    with open("/proc/self/statm") as file:
        return float(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
