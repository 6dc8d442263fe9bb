"""Two controllers, one etcd, real agents: leaders are killed and frozen, and the job does not notice."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from e2e.invariants import assert_generations_rise, assert_states_only_go_forward
from e2e.ledger import assert_exact_ledger
from e2e.local_system import LocalSystem, tiny_job
from etcd_store.controllers import TOKEN, ControllerProcess, answers, two_controllers
from etcd_store.servers import EtcdCluster
from trainctl.protos.v1 import job_pb2

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]
STEPS, SEQUENCES = 300, 24


class SharedSystem(LocalSystem):
    """As ``LocalSystem``, with whichever of two controllers leads."""

    controllers: tuple[ControllerProcess, ...] = ()

    @property
    def controller(self) -> Mapping[str, Any]:
        return {"address": self.leader().address}

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        return (("authorization", f"Bearer {TOKEN}"), ("x-trainctl-wire", "1"))

    def leader(self, *, other_than: ControllerProcess | None = None) -> ControllerProcess:
        """Whoever answers."""
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            for one in self.controllers:
                if one is not other_than and one.address and answers(one.address):
                    return one
        raise AssertionError("nobody leads:\n" + "\n".join(one.log[-3000:] for one in self.controllers))


@contextmanager
def shared_system(folder: Path) -> Iterator[SharedSystem]:
    """etcd, two controllers, and two agents that know of both."""
    with EtcdCluster(folder / "etcd") as etcd, two_controllers(etcd, folder) as both, ExitStack() as stack:
        system = SharedSystem(folder / "local")
        system.controllers = tuple(both)
        (folder / "token").write_text(TOKEN)
        addresses = ",".join(one.address for one in both)
        for node in ("node-0", "node-1"):
            where = folder / "nodes" / node
            where.mkdir(parents=True)
            options = ["--controller", addresses, "--node", node, "--slots", "2", "--dir", str(where)]
            with (where / "log").open("wb") as log:
                agent = subprocess.Popen(
                    [sys.executable, "-m", "trainctl.agent", *options, "--token-file", str(folder / "token")],
                    stdout=log,
                    stderr=log,
                )
            stack.callback(agent.wait)
            stack.callback(agent.terminate)
        yield system


def lives(job: job_pb2.Job) -> set[tuple[int, int, int]]:
    """Slot, incarnation and process of each worker."""
    return {(w.slot, w.incarnation, w.pid) for w in job.status.islands[0].workers}


def test_leaders_come_and_go_and_the_job_does_not_notice(corpus: Path, tmp_path: Path) -> None:
    with shared_system(tmp_path) as system:
        first = system.leader()
        spec = tiny_job("steady", corpus, steps=STEPS, min_nodes=2, interval_steps=100)
        path = tmp_path / "job.yaml"
        path.write_text(spec)
        addresses = ",".join(one.address for one in system.controllers)
        system.cli("submit", "-f", str(path), "--address", addresses, "--token-file", str(tmp_path / "token"))
        job = system.wait_step("steady", 10)
        seen, workers = [job], lives(job)
        first.send(signal.SIGKILL)
        first.wait()
        second = system.leader()
        assert second is not first
        first.start()
        seen.append(system.wait_step("steady", 40))
        second.send(signal.SIGSTOP)
        assert system.leader(other_than=second) is first
        seen.append(system.wait_step("steady", 80))
        second.send(signal.SIGCONT)
        seen.append(system.wait_step("steady", 120))
        assert lives(seen[-1]) == workers
        first.send(signal.SIGTERM)
        assert first.wait() == 0
        end = system.wait_phase("steady", "SUCCEEDED", 90)
        assert end.status.islands[0].generation == 1
        assert list(end.status.recoveries) == []
        assert_states_only_go_forward([*seen, end])
        events = system.events("steady")
        assert [event.revision for event in events] == list(range(1, len(events) + 1))
        assert_generations_rise(events)
        assert not [e for e in events if e.type in ("worker.lost", "worker.condemned", "agent.lost")]
        assert_exact_ledger(system.figures("steady"), steps=STEPS, sequences=SEQUENCES)
        shown = system.cli(
            "get", "jobs", "-o", "name", "--address", addresses, "--token-file", str(tmp_path / "token")
        ).stdout
        assert "steady" in shown
