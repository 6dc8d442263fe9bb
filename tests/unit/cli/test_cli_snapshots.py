"""Snapshots in the memory of nodes, as people see them.

Without it nobody could see whether a lost node would cost much.
"""

from __future__ import annotations

import json
import time

import pytest

from trainctl.cli.render import snapshots
from trainctl.protos.v1.job_pb2 import JobStatus, SnapshotNode, SnapshotStatus
from unit.cli.conftest import Cli
from unit.cli.fake_controller import FakeController

GIB = 1 << 30


def snapshot(nodes: int = 2, **changed: object) -> SnapshotStatus:
    shares = [SnapshotNode(node=f"node-{n}", parts=[0, 1, 2, 3], size_bytes=(3 + n) * GIB) for n in range(nodes)]
    fields: dict[str, object] = {
        "step": 1230,
        "lineage": 1,
        "complete_s": 100.0,
        "parts": 4,
        "steps_back": 4,
        "made": 9,
    }
    return SnapshotStatus(nodes=shares, **{**fields, **changed})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (snapshot(), "step 1230 (12s ago), 4 steps back, each of 4 parts on 2 nodes: node-0 3.0 GiB, node-1 4.0 GiB"),
        (snapshot(steps_back=0, complete_s=0.0, nodes=1, uncopied_parts=4),
         "step 1230, nothing since, 4 parts on one node, lost with it: node-0 3.0 GiB"),
        (snapshot(steps_back=1, nodes=6, uncopied_parts=2),
         "step 1230 (12s ago), 1 step back, 2 of 4 parts on one node only: 33.0 GiB on 6 nodes, at most 8.0 GiB "
         "(node-5)"),
        (snapshot(one_domain_parts=2),
         "step 1230 (12s ago), 4 steps back, each of 4 parts on 2 nodes, but 2 of them in one failure domain only: "
         "node-0 3.0 GiB, node-1 4.0 GiB"),
        (SnapshotStatus(), "none yet"),
        (SnapshotStatus(stopped="no room"), "no more in this generation: no room"),
        (snapshot(nodes=1, stopped="no room"),
         "step 1230 (12s ago), 4 steps back, each of 4 parts on 2 nodes: node-0 3.0 GiB; no more in this generation: "
         "no room"),
    ],
)  # fmt: skip
def test_in_a_line(given: SnapshotStatus, expected: str) -> None:
    assert snapshots.line(JobStatus(snapshot=given), 112.0) == expected


def test_in_the_description_of_a_job(cli: Cli, controller: FakeController) -> None:
    job = controller.add_job("a", step=1234, total_steps=9000)
    job.status.snapshot.CopyFrom(snapshot(complete_s=time.time() - 60.0))
    controller.add_job("plain", step=3, total_steps=10)
    (line,) = [line for line in cli("describe", "a").out.splitlines() if line.startswith("Snapshot")]
    assert line.split(maxsplit=1)[1].startswith("step 1230 (1m0")
    assert line.endswith("node-0 3.0 GiB, node-1 4.0 GiB")
    assert "Snapshot" not in cli("describe", "plain").out
    status = json.loads(cli("describe", "a", "-o", "json").out)["status"]
    assert (status["snapshot"]["step"], status["snapshot"]["stepsBack"]) == (1230, 4)
    assert status["snapshot"]["nodes"][1]["sizeBytes"] in (4 * GIB, str(4 * GIB))
