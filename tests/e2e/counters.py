"""Counters of jobs, scraped from whoever leads: they only ever rise, whoever that is."""

from __future__ import annotations

import re
import threading
import urllib.request
from dataclasses import dataclass, field
from http.client import HTTPException

from e2e.shared_system import SharedSystem
from etcd_store.controllers import ControllerProcess
from trainctl.controller.metrics.jobs import LATE_S

_SAMPLE = re.compile(r"^(trainctl_job_\w+_total\{[^}]*\}) (\S+)$", re.MULTILINE)
_EPOCH = re.compile(r"^trainctl_leader_epoch\{[^}]*\} (\S+)$", re.MULTILINE)
_EVERY_S = 0.5
_LATE_S = LATE_S
"""The one before may have shown time that its last decision, stored but not yet shown, gave to something else. It does
not show it as long as the store's answer is on its way, which a wire that is cut delays by seconds."""


@dataclass(slots=True)
class Counters:
    """Scrapes in a thread of its own until the block ends.

    Attributes:
        system: whose controllers.
        fallen: what fell, as sentences.
        newest: every counter as it was seen last.
    """

    system: SharedSystem
    fallen: list[str] = field(default_factory=list)
    newest: dict[str, float] = field(default_factory=dict)
    _epoch: float = 0.0
    _over: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Counters:
        self._thread = threading.Thread(target=self._scrape_all, name="counters", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        assert self._thread is not None
        self._thread.join(10)

    def _scrape_all(self) -> None:
        while not self._over.wait(_EVERY_S):
            for one in self.system.controllers:
                self._take(one)

    def _take(self, one: ControllerProcess) -> None:
        try:
            with urllib.request.urlopen(f"http://{one.metrics_address}/metrics", timeout=1.0) as answer:
                text = answer.read().decode()
        except (OSError, ValueError, HTTPException):
            return  # nobody answers, or it was killed in the middle of its answer
        epoch = max((float(found) for found in _EPOCH.findall(text)), default=0.0)
        if epoch < self._epoch:
            return  # one that has not noticed yet that another leads
        allowed = _LATE_S if epoch > self._epoch else 0.0
        self._epoch = epoch
        for name, value in _SAMPLE.findall(text):
            if float(value) < self.newest.get(name, 0.0) - allowed:
                self.fallen.append(f"epoch {epoch:g}: {name} fell from {self.newest[name]:g} to {value}")
            self.newest[name] = float(value)
