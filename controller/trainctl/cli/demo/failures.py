"""The failures of the demo: who is killed, and when."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass

from trainctl.cli.connection.client import Client
from trainctl.protos.v1.job_pb2 import Job, ListNodesRequest

VICTIM_RANK = 1
VICTIM_NODE = "node-1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A SIGKILL at a share of the run: of one worker, or of a whole agent with all its workers."""

    at_share: float
    of_agent: bool

    def due(self, job: Job) -> bool:
        """The job trains with all its workers and is far enough."""
        workers = [w for island in job.status.islands for w in island.workers]
        whole = job.status.phase == "RUNNING" and len(workers) == 4 and all(w.pid for w in workers)
        return whole and job.status.step >= self.at_share * job.status.total_steps

    def strike(self, client: Client, job: Job) -> str:
        """Sends the signal; says to whom."""
        if self.of_agent:
            nodes = client.call(client.stub.ListNodes, ListNodesRequest()).nodes
            pid = next(node.pid for node in nodes if node.node == VICTIM_NODE)
            who = f"the agent of {VICTIM_NODE} (process {pid}), two workers end with it"
        else:
            workers = (w for island in job.status.islands for w in island.workers)
            worker = next(w for w in workers if w.global_rank == VICTIM_RANK)
            pid, who = worker.pid, f"rank {VICTIM_RANK} on {worker.node} (process {worker.pid})"
        os.kill(pid, signal.SIGKILL)
        return f"kill -9: {who}"


FAILURES = (Failure(at_share=0.25, of_agent=False), Failure(at_share=0.5, of_agent=True))
