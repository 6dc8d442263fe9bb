"""Random faults: a script made from a seed, and its performance on a local system."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from e2e.local_system import TERMINAL, LocalSystem
from e2e.process_tree import Node, nodes_of, send
from trainctl.protos.v1 import job_pb2

KINDS: Mapping[str, int] = {
    "workers": 5,
    "all_workers": 1,
    "freeze": 2,
    "agent": 3,
    "agent_and_worker": 1,
    "controller": 3,
    "fork_server": 2,
    "store": 2,
}
"""What can happen, and how often relative to the rest."""

_RECOVERY_PATIENCE_S = 6.0


@dataclass(frozen=True, slots=True)
class Fault:
    """One line of the script.

    Attributes:
        kind: one of ``KINDS``.
        pause_s: time since the previous fault.
        in_recovery: waits for the generation to rise first, so that the fault hits the recovery of the previous one.
        choices: random numbers that pick victims among what is there.
        later_s: until a frozen worker wakes up, or a controller is started again.
    """

    kind: str
    pause_s: float
    in_recovery: bool
    choices: tuple[float, ...]
    later_s: float


def script_of(seed: int, count: int, *, dense: bool = False) -> list[Fault]:
    """The faults of a seed, the same list every time; a dense script hardly lets the job get back on its feet."""
    rng = random.Random(seed)
    kinds = rng.choices(list(KINDS), weights=list(KINDS.values()), k=count)
    short_s, long_s, late_s, in_recovery = (0.2, 1.5, 40.0, 0.6) if dense else (0.3, 4.0, 6.0, 0.4)
    return [
        Fault(
            kind=kind,
            pause_s=round(rng.choice([rng.uniform(0, short_s), rng.uniform(0, long_s)]), 3),
            in_recovery=rng.random() < in_recovery,
            choices=tuple(round(rng.random(), 3) for _ in range(4)),
            later_s=round(rng.choice([0.0, rng.uniform(0, 1), rng.uniform(2, late_s)]), 3),
        )
        for kind in kinds
    ]


@dataclass
class Chaos:
    """Performs a script on a job and remembers who was hit, and every state of the job that was seen."""

    system: LocalSystem
    job_name: str
    script: Sequence[Fault]
    hit: set[int] = field(default_factory=set)
    done: list[str] = field(default_factory=list)
    seen: list[job_pb2.Job] = field(default_factory=list)
    changed: threading.Condition = field(default_factory=threading.Condition)
    _started_s: float = 0.0
    _frozen: list[tuple[float, int]] = field(default_factory=list)

    def run(self, liveness_s: float) -> job_pb2.Job:
        """All faults, then peace; the last state of the job, which must be terminal by then."""
        self._started_s = time.monotonic()
        watcher = threading.Thread(target=self._watch, daemon=True)
        watcher.start()
        self._wait(lambda: bool(self.seen) and self.seen[-1].status.step >= 3, 60)
        for fault in self.script:
            self._pause(fault)
            if self._ended():
                break
            getattr(self, f"_{fault.kind}")(fault, nodes_of(self.system.run_dir))
        self._wake(deadline_s=float("inf"))
        self._wait(self._ended, liveness_s)
        assert self._ended(), f"not finished {liveness_s:g} s after the last fault"
        watcher.join(10)
        return self.seen[-1]

    def _watch(self) -> None:
        for job in self.system.watch(self.job_name, 300):
            with self.changed:
                self.seen.append(job)
                self.changed.notify_all()
            if job.status.phase in TERMINAL:
                return

    def _wait(self, condition: Callable[[], bool], deadline_s: float) -> bool:
        with self.changed:
            return self.changed.wait_for(condition, deadline_s)

    def _ended(self) -> bool:
        return bool(self.seen) and self.seen[-1].status.phase in TERMINAL

    def _generation(self) -> int:
        islands = self.seen[-1].status.islands if self.seen else ()
        return islands[0].generation if islands else 0

    def _pause(self, fault: Fault) -> None:
        if fault.in_recovery and self.done:
            before = self._generation()
            self._wait(lambda: self._generation() > before or self._ended(), _RECOVERY_PATIENCE_S)
        self._wait(self._ended, fault.pause_s)
        self._wake(deadline_s=time.monotonic())

    def _wake(self, *, deadline_s: float) -> None:
        """Lets frozen workers go on whose time has come; a pidfd means nobody else even if the pid is taken again."""
        for wakes_s, pidfd in sorted(self._frozen):
            if wakes_s > deadline_s:
                continue
            self._wait(self._ended, max(0.0, min(wakes_s - time.monotonic(), 10)))
            try:
                signal.pidfd_send_signal(pidfd, signal.SIGCONT)
            except ProcessLookupError:
                self._note("woken too late, it was condemned")
            os.close(pidfd)
            self._frozen.remove((wakes_s, pidfd))

    def _note(self, what: str) -> None:
        step = self.seen[-1].status.step if self.seen else 0
        line = f"{time.monotonic() - self._started_s:6.2f} s, step {step}, generation {self._generation()}: {what}"
        self.done.append(line)

    def _kill(self, what: str, *pids: int) -> None:
        self.hit.update(pids)
        found = [pid for pid in pids if pid and send(pid, signal.SIGKILL)]
        self._note(f"SIGKILL {what} {found}")

    def _doom(self, name: str, pid: int) -> None:
        """All workers of a node go with ``pid``: which ones these are is seen when no more can come."""
        if pid:
            send(pid, signal.SIGSTOP)
        node = nodes_of(self.system.run_dir).get(name)
        self.hit.update(node.workers if node is not None else ())

    def _workers(self, fault: Fault, nodes: Mapping[str, Node]) -> None:
        pids = sorted(pid for node in nodes.values() for pid in node.workers)
        count = 1 + int(fault.choices[0] * 3)
        order = random.Random(fault.choices[1]).sample(pids, len(pids))
        self._kill("workers", *order[: min(count, max(1, len(pids) - 1))])

    def _all_workers(self, fault: Fault, nodes: Mapping[str, Node]) -> None:
        self._kill("all workers", *(pid for node in nodes.values() for pid in node.workers))

    def _freeze(self, fault: Fault, nodes: Mapping[str, Node]) -> None:
        pids = sorted(pid for node in nodes.values() for pid in node.workers)
        if not pids:
            return
        pid = pids[int(fault.choices[0] * len(pids))]
        self.hit.add(pid)
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            return
        if send(pid, signal.SIGSTOP):
            self._note(f"SIGSTOP worker {pid}")
        self._frozen.append((time.monotonic() + fault.later_s, pidfd))

    def _agent(self, fault: Fault, nodes: Mapping[str, Node]) -> None:
        name, node = _pick(nodes, fault)
        self._doom(name, node.agent)
        self._kill(f"agent of {name}", node.agent)

    def _agent_and_worker(self, fault: Fault, nodes: Mapping[str, Node]) -> None:
        name, node = _pick(nodes, fault)
        others = sorted(pid for other, at in nodes.items() if other != name for pid in at.workers)
        self._doom(name, node.agent)
        self._kill(f"agent of {name} and a worker elsewhere", node.agent, *others[:1])

    def _fork_server(self, fault: Fault, nodes: Mapping[str, Node]) -> None:
        name, node = _pick(nodes, fault)
        self._doom(name, node.fork_server)
        self._kill(f"fork server of {name}", node.fork_server)

    def _store(self, fault: Fault, nodes: Mapping[str, Node]) -> None:
        name, node = _pick(nodes, fault)
        self._kill(f"store of {name}", node.store)

    def _controller(self, fault: Fault, nodes: Mapping[str, Node]) -> None:
        self._kill("controller", self.system.controller["pid"])
        if fault.choices[1] < 0.3:
            self._workers(fault, nodes)
        self._wait(self._ended, fault.later_s)
        self.system.up()
        self._note("controller is up again")


def _pick(nodes: Mapping[str, Node], fault: Fault) -> tuple[str, Node]:
    return sorted(nodes.items())[int(fault.choices[0] * len(nodes))]
