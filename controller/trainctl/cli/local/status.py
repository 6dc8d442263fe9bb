"""What runs in a local installation: the controller's word where it answers, the processes' where it does not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainctl.cli.connection.client import Client, list_jobs
from trainctl.cli.connection.connecting import local_endpoint
from trainctl.cli.output import plain
from trainctl.cli.phases import has_ended
from trainctl.cli.render import tables
from trainctl.cli.terminal.style import Style, table
from trainctl.cli.terminal.times import age, rfc3339
from trainctl.core.errors import UnavailableError
from trainctl.core.system.run_folder import (
    ControllerEnd,
    LocalAgent,
    LocalController,
    read_agents,
    read_controller,
    read_end,
)
from trainctl.protos.v1.job_pb2 import Job, ListNodesRequest, NodeStatus

_CALL_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalStatus:
    """One look at a local installation.

    Attributes:
        run_dir: its folder.
        controller: the newest one started there, None if there never was one.
        answers: whether it answers.
        end: why none runs, if the newest one ended by itself.
        agents: the newest agents' processes.
        nodes: the nodes as the controller sees them.
        jobs: all jobs.
    """

    run_dir: Path
    controller: LocalController | None
    answers: bool
    end: ControllerEnd | None
    agents: Sequence[LocalAgent]
    nodes: Sequence[NodeStatus]
    jobs: Sequence[Job]


def look(run_dir: Path) -> LocalStatus:
    """Looks at the processes, and asks the controller if it runs."""
    nodes: Sequence[NodeStatus] = ()
    jobs: Sequence[Job] = ()
    answers = False
    try:
        with Client(local_endpoint(run_dir), timeout_s=_CALL_S) as client:
            nodes = client.call(client.stub.ListNodes, ListNodesRequest()).nodes
            jobs = list_jobs(client)
            answers = True
    except UnavailableError:
        answers = False
    return LocalStatus(
        run_dir=run_dir,
        controller=read_controller(run_dir),
        answers=answers,
        end=None if answers else read_end(run_dir),
        agents=read_agents(run_dir),
        nodes=nodes,
        jobs=jobs,
    )


def state(status: LocalStatus) -> str:
    """``running``, ``not answering`` or ``not running``."""
    if status.answers:
        return "running"
    return "not answering" if status.controller is not None and status.controller.alive else "not running"


def data(status: LocalStatus) -> dict[str, Any]:
    """The status for machines."""
    controller = status.controller
    facts: dict[str, Any] = {"state": state(status)}
    if controller is not None:
        facts |= {
            "pid": controller.process.pid,
            "address": controller.address,
            "version": controller.version,
            "metricsAddress": controller.metrics_address,
            "started": rfc3339(controller.started_s) if controller.started_s else None,
        }
    if status.end is not None:
        end = status.end
        facts["ended"] = {"time": rfc3339(end.at_s), "code": end.code, "message": end.message, "remedy": end.hint}
    return {
        "dir": str(status.run_dir),
        "controller": facts,
        "agents": [{"node": a.node, "pid": a.process.pid, "alive": a.alive} for a in status.agents],
        "nodes": [plain(node) for node in status.nodes],
        "jobs": [plain(job) for job in status.jobs],
    }


def lines(status: LocalStatus, *, now_s: float, style: Style) -> list[str]:
    """The status for people: controller, agents, jobs, and the workers of the jobs that run."""
    sections = [_controller(status, now_s=now_s, style=style), _agents(status, style=style)]
    if status.jobs:
        sections.append(tables.jobs(status.jobs, now_s=now_s, style=style))
    for job in status.jobs:
        workers = [] if has_ended(job.status.phase) else tables.workers(job, style=style)
        if workers:
            sections.append([f"workers of {job.spec.metadata.name}:", *(f"  {line}" for line in workers)])
    return [line for section in sections if section for line in [*section, ""]][:-1]


def _controller(status: LocalStatus, *, now_s: float, style: Style) -> list[str]:
    controller, word = status.controller, state(status)
    painted = style.paint(word, "green" if status.answers else "red")
    if controller is None or not controller.alive:
        return [f"controller  {painted}", f"folder      {status.run_dir}"]
    found = [
        f"controller  {painted}, process {controller.process.pid}, up {age(controller.started_s, now_s)}",
        f"address     {controller.address}",
    ]
    if controller.metrics_address:
        found.append(f"metrics     http://{controller.metrics_address}/metrics")
    return [*found, f"folder      {status.run_dir}"]


def _agents(status: LocalStatus, *, style: Style) -> list[str]:
    if status.nodes:
        return tables.nodes(status.nodes, style=style)
    rows = [(a.node, str(a.process.pid), style.state("running" if a.alive else "dead")) for a in status.agents]
    return table(("NODE", "PID", "PROCESS"), rows, style=style, right="PID") if rows else []
