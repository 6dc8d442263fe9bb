"""The part of ``JobService`` that changes jobs and nodes on request; every call is safe to repeat under its id."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from trainctl.controller.access.caller import calling
from trainctl.controller.agents.agent import NodeMark
from trainctl.controller.domain.job_state import JobState
from trainctl.controller.domain.reconcile import (
    IllegalTransitionError,
    Reconciliation,
    holds_checkpoint,
    request_cancel,
    request_pause,
    request_restart,
    request_scale,
)
from trainctl.controller.domain.states import JobPhase
from trainctl.controller.jobs.entry import JobEntry
from trainctl.controller.jobs.verbs import Call, Verbs
from trainctl.core.errors import UsageError
from trainctl.core.ids import DEFAULT_TENANT
from trainctl.protos.convert import record_to_message
from trainctl.protos.v1 import job_pb2, job_pb2_grpc, records_pb2

Context = Any
"""``grpc.aio.ServicerContext`` of whatever call."""
DEFAULT_GRACE_S = 30.0


class VerbService(job_pb2_grpc.JobServiceServicer):
    """Thin: makes a call record of each request, asks ``Verbs``, and shows the job as it is then.

    Args:
        verbs: carry the requests out.
        show: the message of a job.
        show_node: the message of a node, by name.
        look_at_all: every job decides anew.
    """

    def __init__(
        self,
        verbs: Verbs,
        *,
        show: Callable[[JobEntry], job_pb2.Job],
        show_node: Callable[[str], job_pb2.NodeStatus],
        look_at_all: Callable[[], None],
    ) -> None:
        self._verbs = verbs
        self._show = show
        self._show_node = show_node
        self._look_at_all = look_at_all

    async def CancelJob(self, request: job_pb2.CancelJobRequest, context: Context) -> job_pb2.CancelJobResponse:  # noqa: N802
        """Begins to end a job; asking again changes nothing."""
        if request.grace_s < 0:
            raise UsageError(f"grace_s: expected seconds from 0 on, found {request.grace_s:g}")
        decide = partial(_cancel, checkpoint=request.checkpoint, grace_s=request.grace_s or DEFAULT_GRACE_S)
        return job_pb2.CancelJobResponse(job=await self._change(request, decide))

    async def ScaleJob(self, request: job_pb2.ScaleJobRequest, context: Context) -> job_pb2.ScaleJobResponse:  # noqa: N802
        """New elastic bounds."""
        least = request.min if request.HasField("min") else None
        most = request.max if request.HasField("max") else None
        target = request.target if request.HasField("target") else None
        if least is None and most is None and target is None:
            raise UsageError("expected min, max or target, found none of them")
        decide = partial(request_scale, least=least, most=most, target=target)
        return job_pb2.ScaleJobResponse(job=await self._change(request, decide))

    async def PauseJob(self, request: job_pb2.PauseJobRequest, context: Context) -> job_pb2.PauseJobResponse:  # noqa: N802
        """Saves, stops the workers, gives their slots back."""
        return job_pb2.PauseJobResponse(job=await self._change(request, request_pause))

    async def ResumeJob(self, request: job_pb2.ResumeJobRequest, context: Context) -> job_pb2.ResumeJobResponse:  # noqa: N802
        """A paused job goes on."""
        return job_pb2.ResumeJobResponse(job=self._show(await self._verbs.resume(_call(request))))

    async def RestartJob(self, request: job_pb2.RestartJobRequest, context: Context) -> job_pb2.RestartJobResponse:  # noqa: N802
        """All workers get new processes."""
        decide = partial(request_restart, allow_loss=request.allow_loss)
        return job_pb2.RestartJobResponse(job=await self._change(request, decide))

    async def RollbackJob(  # noqa: N802
        self, request: job_pb2.RollbackJobRequest, context: Context
    ) -> job_pb2.RollbackJobResponse:
        """Goes back to a committed checkpoint."""
        to_step = request.to_step if request.HasField("to_step") else None
        entry, plan = await self._verbs.rollback(_call(request), to_step, validate_only=request.validate_only)
        ref = record_to_message(plan.target, records_pb2.CheckpointRef)
        return job_pb2.RollbackJobResponse(job=self._show(entry), checkpoint=ref, lost_steps=plan.lost_steps)

    async def DeleteJob(self, request: job_pb2.DeleteJobRequest, context: Context) -> job_pb2.DeleteJobResponse:  # noqa: N802
        """Nothing of the job is left in the end."""
        uid = await self._verbs.delete(
            _call(request), force=request.force, keep_checkpoints=request.keep_checkpoints, by=str(calling())
        )
        return job_pb2.DeleteJobResponse(uid=uid)

    async def DeleteCheckpoint(  # noqa: N802
        self, request: job_pb2.DeleteCheckpointRequest, context: Context
    ) -> job_pb2.DeleteCheckpointResponse:
        """One checkpoint of a job goes."""
        entry = await self._verbs.remove_checkpoint(_call(request), request.step)
        return job_pb2.DeleteCheckpointResponse(job=self._show(entry))

    async def PinCheckpoint(  # noqa: N802
        self, request: job_pb2.PinCheckpointRequest, context: Context
    ) -> job_pb2.PinCheckpointResponse:
        """One checkpoint of a job stays, or no longer has to."""
        entry = await self._verbs.pin(_call(request), request.step, pinned=request.pinned)
        return job_pb2.PinCheckpointResponse(job=self._show(entry))

    async def AcceptCheckpoint(  # noqa: N802
        self, request: job_pb2.AcceptCheckpointRequest, context: Context
    ) -> job_pb2.AcceptCheckpointResponse:
        """One refused checkpoint of a job is whole again."""
        entry = await self._verbs.accept(_call(request), request.uri)
        return job_pb2.AcceptCheckpointResponse(
            job=self._show(entry), listed=holds_checkpoint(entry.state, request.uri)
        )

    async def RefuseCheckpoint(  # noqa: N802
        self, request: job_pb2.RefuseCheckpointRequest, context: Context
    ) -> job_pb2.RefuseCheckpointResponse:
        """One checkpoint of a job was read and found damaged."""
        entry = await self._verbs.refuse(_call(request), request.uri, found=request.found, by=str(calling()))
        return job_pb2.RefuseCheckpointResponse(
            job=self._show(entry), listed=holds_checkpoint(entry.state, request.uri)
        )

    async def CordonNode(self, request: job_pb2.CordonNodeRequest, context: Context) -> job_pb2.CordonNodeResponse:  # noqa: N802
        """No new work for a node; with ``drain`` its workers move away."""
        await self._mark(request, NodeMark(cordoned=True, draining=request.drain))
        return job_pb2.CordonNodeResponse(node=self._show_node(request.node))

    async def UncordonNode(  # noqa: N802
        self, request: job_pb2.UncordonNodeRequest, context: Context
    ) -> job_pb2.UncordonNodeResponse:
        """A node takes work again."""
        await self._mark(request, NodeMark())
        return job_pb2.UncordonNodeResponse(node=self._show_node(request.node))

    async def _change(self, request: Any, decide: Callable[[JobState, float], Reconciliation]) -> job_pb2.Job:
        return self._show(await self._verbs.change(_call(request), decide))

    async def _mark(self, request: Any, mark: NodeMark) -> None:
        await self._verbs.mark(_call(request), mark)
        self._look_at_all()


def _cancel(state: JobState, now_s: float, *, checkpoint: bool, grace_s: float) -> Reconciliation:
    if state.phase in (JobPhase.SUCCEEDED, JobPhase.FAILED):
        raise IllegalTransitionError(
            f"job {state.name} has ended ({state.phase}): it cannot be cancelled",
            hint=f"to see how it went: trainctl describe {state.name}",
        )
    return request_cancel(state, now_s, checkpoint=checkpoint, grace_s=grace_s)


def _call(request: Any) -> Call:
    """The request as a record; its body is all but the id.

    Raises:
        UsageError: it names nothing.
    """
    node = "node" in request.DESCRIPTOR.fields_by_name
    subject = request.node if node else request.name
    if not subject:
        expected = "the name of a node" if node else "the name or uid of a job"
        lists = "trainctl nodes list" if node else "trainctl get jobs"
        raise UsageError(
            f"{'node' if node else 'name'}: expected {expected}, found nothing",
            hint=f"`{lists}` lists all {'nodes' if node else 'jobs'}",
        )
    body = type(request)()
    body.CopyFrom(request)
    body.request_id = ""
    return Call(
        method=type(request).__name__.removesuffix("Request"),
        tenant=DEFAULT_TENANT if node else request.tenant or DEFAULT_TENANT,
        subject=subject,
        request_id=request.request_id,
        body=body.SerializeToString(deterministic=True),
    )
