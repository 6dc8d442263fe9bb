"""A node as the API shows it. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from trainctl.controller.agents.agent import Agent, NodeMark
from trainctl.controller.domain.job_state import JobState
from trainctl.controller.domain.states import JobPhase
from trainctl.controller.domain.view import AgentView
from trainctl.core.units import format_count
from trainctl.protos.v1 import job_pb2

SILENT_S = 3.0
"""An agent that reports four times a second and was not heard for so long does not answer."""


def node_message(
    agent: Agent, view: AgentView, mark: NodeMark, states: Iterable[JobState], *, used: int
) -> job_pb2.NodeStatus:
    """One node.

    Args:
        agent: its newest life.
        view: what is seen of it.
        mark: what an operator said of it.
        states: all jobs.
        used: its slots that are taken.
    """
    heard = view.connected and view.last_heard_age_s <= SILENT_S
    state = "READY" if heard else "EXITED" if view.process_exited else "UNREACHABLE"
    registration = agent.registration
    return job_pb2.NodeStatus(
        node=registration.node,
        state=state,
        agent_incarnation=agent.incarnation,
        pid=registration.pid,
        slots=registration.slots,
        slots_used=used,
        last_heard_age_s=view.last_heard_age_s,
        version=registration.version,
        address=registration.address,
        metrics_address=registration.metrics_address,
        cordoned=mark.cordoned,
        draining=mark.draining,
        device=view.device,
        failure_domain=registration.failure_domain,
        certificate_expires_s=agent.certificate_ends_s,
        jobs=[job for state in states if (job := _job_on(state, agent.incarnation, mark)) is not None],
    )


def _job_on(state: JobState, agent_incarnation: int, mark: NodeMark) -> job_pb2.NodeJob | None:
    slots = [s.index for i in state.islands for s in i.slots if s.bound and s.agent_incarnation == agent_incarnation]
    if not slots:
        return None
    waiting = _why_still_there(state, len(slots)) if mark.draining else ""
    return job_pb2.NodeJob(name=state.name, uid=state.uid, slots=slots, waiting=waiting)


def _why_still_there(state: JobState, leaving: int) -> str:
    """What the job waits for before its workers leave a draining node."""
    if state.phase is not JobPhase.RUNNING:
        return f"it is {state.phase.value}: its workers are moved when it trains"
    record = state.sole_island.record
    left = (record.world_size if record is not None else 0) - leaving
    least = state.spec.spec.nodes.min * state.spec.spec.resources.workers_per_node
    if left < least:
        rest = format_count(left, "worker")
        return f"needs room on another node: without this one {rest} would be left, and it trains with {least} at least"
    return "its workers leave at the next step boundary"
