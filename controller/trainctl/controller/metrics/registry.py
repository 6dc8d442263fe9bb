"""The controller's own registry: every metric of the catalogue, by name, and the port that serves them."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from threading import Thread
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, start_http_server

from trainctl.controller.domain.job_state import JobState
from trainctl.controller.metrics.catalogue import CONTROLLER_METRICS, Kind, Metric
from trainctl.controller.metrics.jobs import JobCollector
from trainctl.core.errors import ConflictError

_KNOCK_S = 0.01


class ControllerMetrics:
    """Holds the instruments; ``inc``, ``set`` and ``observe`` name a metric of the catalogue.

    Args:
        states: the jobs to show.
        now_s: Unix seconds.
        since_s: see ``job_samples``.
        saves_in_flight: of the jobs whose workers report some, by uid.
    """

    def __init__(
        self,
        states: Callable[[], Iterable[JobState]],
        now_s: Callable[[], float],
        since_s: Callable[[], float] = lambda: 0.0,
        saves_in_flight: Callable[[], Mapping[str, int]] = dict,
    ) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self.registry.register(JobCollector(states, now_s, since_s, saves_in_flight))
        self._counters: dict[str, Counter] = {}
        self._gauges: dict[str, Gauge] = {}
        self._histograms: dict[str, Histogram] = {}
        for metric in CONTROLLER_METRICS:
            self._declare(metric)

    def _declare(self, metric: Metric) -> None:
        if metric.kind is Kind.COUNTER:
            self._counters[metric.name] = Counter(metric.name, metric.help, metric.labels, registry=self.registry)
        elif metric.kind is Kind.GAUGE:
            # A gauge without labels would be served as 0 before it was ever set: it is made when it is.
            if metric.labels:
                self._gauges[metric.name] = Gauge(metric.name, metric.help, metric.labels, registry=self.registry)
        else:
            self._histograms[metric.name] = Histogram(
                metric.name, metric.help, metric.labels, registry=self.registry, buckets=metric.buckets
            )

    def inc(self, name: str, amount: float = 1, **labels: str) -> None:
        """Adds to a counter."""
        counter = self._counters[name]
        (counter.labels(**labels) if labels else counter).inc(amount)

    def set(self, name: str, value: float, **labels: str) -> None:
        """Sets a gauge."""
        if name not in self._gauges:
            metric = next(m for m in CONTROLLER_METRICS if m.name == name and m.kind is Kind.GAUGE)
            self._gauges[name] = Gauge(metric.name, metric.help, registry=self.registry)
        gauge = self._gauges[name]
        (gauge.labels(**labels) if labels else gauge).set(value)

    def observe(self, name: str, seconds: float, **labels: str) -> None:
        """Adds an observation to a histogram."""
        histogram = self._histograms[name]
        (histogram.labels(**labels) if labels else histogram).observe(seconds)


class MetricsServer:
    """``/metrics`` on a port of its own, in a thread of its own: a busy event loop does not delay a scrape."""

    def __init__(self, metrics: ControllerMetrics, host: str, port: int) -> None:
        try:
            started: tuple[WSGIServer, Thread] = start_http_server(port, host, registry=metrics.registry)
        except OSError as error:
            raise ConflictError(
                f"cannot serve metrics on {host}:{port}: {error.strerror}", hint="choose another --metrics-port"
            ) from error
        self._server, self._thread = started
        self._knock = (host, self._server.server_port)
        self.address = f"{host}:{self._server.server_port}"

    def close(self) -> None:
        """Stops serving."""
        ending = Thread(target=self._server.shutdown)
        ending.start()
        while ending.is_alive():  # it looks up when somebody comes, otherwise only twice a second
            with suppress(OSError), socket.create_connection(self._knock, _KNOCK_S):
                pass
            ending.join(_KNOCK_S)
        self._server.server_close()
        self._thread.join()
