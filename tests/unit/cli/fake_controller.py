"""A controller of the size that the command line can see: in memory, scripted by the test, on a port of its own."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NoReturn

import grpc

from trainctl.controller.domain.reconcile.wishes import StepsWouldBeLostError
from trainctl.core.errors import NotFoundError, PermissionDeniedError, TrainctlError
from trainctl.protos.status import code_of, trailing_metadata
from trainctl.protos.v1 import job_pb2, job_pb2_grpc
from trainctl.protos.v1.records_pb2 import CheckpointRef, LogPosition, StepFigures

TOKEN = "secret"
ENDED = ("SUCCEEDED", "FAILED", "CANCELLED")


class FakeController(job_pb2_grpc.JobServiceServicer):
    """Holds jobs and events; a stream shows what is there, then polls for more until the server stops."""

    def __init__(self) -> None:
        self.jobs: dict[str, job_pb2.Job] = {}
        self.events: list[job_pb2.Event] = []
        self.logs: dict[tuple[int, int], list[str]] = {}
        self.checkpoints: list[CheckpointRef] = []
        self.missing_checkpoints: list[str] = []
        self.pinned: set[str] = set()
        self.removing: list[CheckpointRef] = []
        self.refused: list[job_pb2.RefusedCheckpoint] = []
        self.takes_accepted = True
        self.rollback_uri = ""
        self.figures: list[StepFigures] = []
        self.nodes: list[job_pb2.NodeStatus] = []
        self.calls: list[tuple[str, Any]] = []
        self.request_ids: list[str] = []
        self.failures: list[TrainctlError] = []
        self.store_status: job_pb2.StoreStatus | None = None
        self.stuck = ""
        self.ends = 0
        self.on_call: Callable[[str], None] = lambda method: None
        self.port = 0
        self._stopping = False
        self._server: grpc.Server | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        self._stopping = False
        self._server = grpc.server(ThreadPoolExecutor(8), options=[("grpc.so_reuseport", 0)])
        job_pb2_grpc.add_JobServiceServicer_to_server(self, self._server)
        self.port = self._server.add_insecure_port(f"127.0.0.1:{self.port}")
        self._server.start()

    def stop(self) -> None:
        self._stopping = True
        if self._server is not None:
            self._server.stop(grace=None).wait(10)
            self._server = None

    def add_job(self, name: str, phase: str = "RUNNING", **status: Any) -> job_pb2.Job:
        job = job_pb2.Job(uid=f"uid-{name}", create_time_s=time.time() - 60)
        job.spec.metadata.name = name
        job.status.MergeFrom(job_pb2.JobStatus(phase=phase, **status))
        self.jobs[name] = job
        return job

    def add_event(self, type_: str, message: str, *, revision: int = 0, **fields: str) -> None:
        last = self.events[-1].revision if self.events else 0
        event = job_pb2.Event(
            revision=revision or last + 1, time_s=time.time(), type=type_, message=message, fields=fields
        )
        self.events.append(event)

    def _enter(self, method: str, request: Any, context: grpc.ServicerContext) -> None:
        self.calls.append((method, request))
        metadata = dict((k, v) for k, v in context.invocation_metadata())
        assert context.time_remaining() is not None, f"{method} has no deadline"
        assert metadata["x-trainctl-wire"] == "1"
        self.request_ids.append(str(metadata["x-trainctl-request"]))
        if metadata["authorization"] != f"Bearer {TOKEN}":
            error = PermissionDeniedError("the token is wrong", hint="give the right one with --token-file")
            error.code = "UNAUTHENTICATED"
            self._abort(error, context)
        if self.ends:
            self.ends -= 1
            context.abort(grpc.StatusCode.CANCELLED, "")
        if self.failures:
            self._abort(self.failures.pop(0), context)
        self.on_call(method)

    @staticmethod
    def _abort(error: TrainctlError, context: grpc.ServicerContext) -> NoReturn:
        context.set_trailing_metadata(trailing_metadata(error))
        context.abort(code_of(error), str(error))
        raise AssertionError("abort raises")

    def _find(self, name: str, context: grpc.ServicerContext) -> job_pb2.Job:
        for job in self.jobs.values():
            if name in (job.uid, job.spec.metadata.name):
                return job
        self._abort(NotFoundError(f"there is no job {name}", hint="`trainctl get jobs` lists them"), context)

    def CreateJob(self, request: Any, context: Any) -> job_pb2.CreateJobResponse:  # noqa: N802
        self._enter("CreateJob", request, context)
        name = request.job.metadata.name
        if request.validate_only:
            return job_pb2.CreateJobResponse(plan=["2 nodes with 2 workers each", "one island"])
        job = self.add_job(name, "QUEUED")
        job.spec.CopyFrom(request.job)
        return job_pb2.CreateJobResponse(job=job)

    def GetJob(self, request: Any, context: Any) -> job_pb2.GetJobResponse:  # noqa: N802
        self._enter("GetJob", request, context)
        return job_pb2.GetJobResponse(job=self._find(request.name, context))

    def ListJobs(self, request: Any, context: Any) -> job_pb2.ListJobsResponse:  # noqa: N802
        self._enter("ListJobs", request, context)
        names = sorted(self.jobs)
        start = int(request.page_token or 0)
        more = start + 1 < len(names)  # one a page, so that every list needs several
        page = [self.jobs[name] for name in names[start : start + 1]]
        return job_pb2.ListJobsResponse(jobs=page, next_page_token=str(start + 1) if more else "")

    def CancelJob(self, request: Any, context: Any) -> job_pb2.CancelJobResponse:  # noqa: N802
        self._enter("CancelJob", request, context)
        job = self._find(request.name, context)
        job.status.phase = "CANCELLING"
        return job_pb2.CancelJobResponse(job=job)

    def ScaleJob(self, request: Any, context: Any) -> job_pb2.ScaleJobResponse:  # noqa: N802
        self._enter("ScaleJob", request, context)
        job = self._find(request.name, context)
        nodes = job.effective_spec.spec.nodes
        for name in ("min", "max", "target"):
            if request.HasField(name):
                setattr(nodes, name, getattr(request, name))
        return job_pb2.ScaleJobResponse(job=job)

    def PauseJob(self, request: Any, context: Any) -> job_pb2.PauseJobResponse:  # noqa: N802
        self._enter("PauseJob", request, context)
        job = self._find(request.name, context)
        job.status.phase = "PAUSED"
        return job_pb2.PauseJobResponse(job=job)

    def ResumeJob(self, request: Any, context: Any) -> job_pb2.ResumeJobResponse:  # noqa: N802
        self._enter("ResumeJob", request, context)
        job = self._find(request.name, context)
        job.status.phase = "QUEUED"
        return job_pb2.ResumeJobResponse(job=job)

    def RestartJob(self, request: Any, context: Any) -> job_pb2.RestartJobResponse:  # noqa: N802
        self._enter("RestartJob", request, context)
        job = self._find(request.name, context)
        if job.status.phase != "RUNNING" and not request.allow_loss:
            self._abort(StepsWouldBeLostError("it goes on from step 7 and loses 5 steps", hint="or -y"), context)
        return job_pb2.RestartJobResponse(job=job)

    def RollbackJob(self, request: Any, context: Any) -> job_pb2.RollbackJobResponse:  # noqa: N802
        self._enter("RollbackJob", request, context)
        step = request.to_step or 20
        ref = CheckpointRef(uri=self.rollback_uri or f"/checkpoints/{step}", step=step)
        return job_pb2.RollbackJobResponse(job=self._find(request.name, context), checkpoint=ref, lost_steps=13)

    def DeleteJob(self, request: Any, context: Any) -> job_pb2.DeleteJobResponse:  # noqa: N802
        self._enter("DeleteJob", request, context)
        job = self._find(request.name, context)
        if not self.stuck:
            del self.jobs[job.spec.metadata.name]
        else:
            job.status.conditions.add(type="DeletionFailed", status="True", message=self.stuck)
        return job_pb2.DeleteJobResponse(uid=job.uid)

    def CordonNode(self, request: Any, context: Any) -> job_pb2.CordonNodeResponse:  # noqa: N802
        self._enter("CordonNode", request, context)
        node = next(node for node in self.nodes if node.node == request.node)
        node.cordoned, node.draining = True, request.drain
        return job_pb2.CordonNodeResponse(node=node)

    def UncordonNode(self, request: Any, context: Any) -> job_pb2.UncordonNodeResponse:  # noqa: N802
        self._enter("UncordonNode", request, context)
        node = next(node for node in self.nodes if node.node == request.node)
        node.cordoned = node.draining = False
        return job_pb2.UncordonNodeResponse(node=node)

    def ListEvents(self, request: Any, context: Any) -> job_pb2.ListEventsResponse:  # noqa: N802
        self._enter("ListEvents", request, context)
        self._find(request.name, context)
        newer = [e for e in self.events if e.revision > request.after_revision]
        return job_pb2.ListEventsResponse(events=newer[: request.limit or 1000])

    def WatchEvents(self, request: Any, context: Any) -> Iterator[job_pb2.WatchEventsResponse]:  # noqa: N802
        self._enter("WatchEvents", request, context)
        shown = 0
        for _ in self._ticks(context):
            ended = self._find(request.name, context).status.phase in ENDED
            batch = self.events[shown:]
            shown += len(batch)
            for event in batch:
                if event.revision > request.after_revision:
                    yield job_pb2.WatchEventsResponse(event=event)
            if ended:
                return

    def WatchJob(self, request: Any, context: Any) -> Iterator[job_pb2.WatchJobResponse]:  # noqa: N802
        self._enter("WatchJob", request, context)
        self._find(request.name, context)
        shown, last = len(self.events), b""
        for _ in self._ticks(context):
            job = self._find(request.name, context)
            state = job.SerializeToString(deterministic=True)
            batch = self.events[shown:]
            if state != last or batch:
                shown, last = shown + len(batch), state
                yield job_pb2.WatchJobResponse(job=job_pb2.Job.FromString(state), events=batch)

    def StreamLogs(self, request: Any, context: Any) -> Iterator[job_pb2.StreamLogsResponse]:  # noqa: N802
        self._enter("StreamLogs", request, context)
        job = self._find(request.name, context)
        shown = {(p.slot, p.incarnation): p.line for p in request.positions}
        for _ in self._ticks(context):
            lives = [life for life in sorted(self.logs) if not request.slots or life[0] in request.slots]
            lives = [life for life in lives if request.incarnation in (0, life[1])]
            for life in lives:
                node = f"node-{life[0]}"
                if life not in shown:
                    known = node in request.begun_nodes
                    tail = request.tail_lines or len(self.logs[life])
                    shown[life] = 0 if known else max(len(self.logs[life]) - tail, 0)
                    start = LogPosition(slot=life[0], incarnation=life[1], line=shown[life])
                    yield job_pb2.StreamLogsResponse(node=node, begun=True, starts=[start])
                first, lines = shown[life], self.logs[life][shown[life] :]
                shown[life] += len(lines)
                if lines:
                    yield job_pb2.StreamLogsResponse(
                        slot=life[0], incarnation=life[1], node=node, lines=lines, first_line=first + 1
                    )
            if not request.follow or job.status.phase in ENDED:
                return

    def ExplainJob(self, request: Any, context: Any) -> job_pb2.ExplainJobResponse:  # noqa: N802
        self._enter("ExplainJob", request, context)
        job = self._find(request.name, context)
        return job_pb2.ExplainJobResponse(sentences=["It trains."], recoveries=job.status.recoveries)

    def ListCheckpoints(self, request: Any, context: Any) -> job_pb2.ListCheckpointsResponse:  # noqa: N802
        self._enter("ListCheckpoints", request, context)
        self._find(request.name, context)
        answer = job_pb2.ListCheckpointsResponse(
            checkpoints=self.checkpoints,
            uri="/checkpoints",
            missing=self.missing_checkpoints,
            pinned=sorted(self.pinned),
            removing=self.removing,
            refused=self.refused,
        )
        if not self.stuck:
            self.removing = []  # gone at the next look
        return answer

    def DeleteCheckpoint(self, request: Any, context: Any) -> job_pb2.DeleteCheckpointResponse:  # noqa: N802
        self._enter("DeleteCheckpoint", request, context)
        job = self._find(request.name, context)
        self.removing += [ref for ref in self.checkpoints if ref.step == request.step]
        self.checkpoints = [ref for ref in self.checkpoints if ref.step != request.step]
        if self.stuck:
            job.status.conditions.add(type="DeletionFailed", status="True", message=self.stuck)
        return job_pb2.DeleteCheckpointResponse(job=job)

    def PinCheckpoint(self, request: Any, context: Any) -> job_pb2.PinCheckpointResponse:  # noqa: N802
        self._enter("PinCheckpoint", request, context)
        uris = {ref.uri for ref in self.checkpoints if ref.step == request.step}
        self.pinned = self.pinned | uris if request.pinned else self.pinned - uris
        return job_pb2.PinCheckpointResponse(job=self._find(request.name, context))

    def AcceptCheckpoint(self, request: Any, context: Any) -> job_pb2.AcceptCheckpointResponse:  # noqa: N802
        self._enter("AcceptCheckpoint", request, context)
        taken = [one.ref for one in self.refused if one.ref.uri == request.uri]
        self.refused = [one for one in self.refused if one.ref.uri != request.uri]
        self.checkpoints += taken if self.takes_accepted else []
        return job_pb2.AcceptCheckpointResponse(job=self._find(request.name, context), listed=self.takes_accepted)

    def RefuseCheckpoint(self, request: Any, context: Any) -> job_pb2.RefuseCheckpointResponse:  # noqa: N802
        self._enter("RefuseCheckpoint", request, context)
        bad = [ref for ref in self.checkpoints if ref.uri == request.uri]
        listed = len(self.checkpoints) == 1
        if not listed:
            self.checkpoints = [ref for ref in self.checkpoints if ref.uri != request.uri]
            self.refused += [job_pb2.RefusedCheckpoint(ref=ref, reason=request.found, at_s=1.2e9) for ref in bad]
        return job_pb2.RefuseCheckpointResponse(job=self._find(request.name, context), listed=listed)

    def ListFigures(self, request: Any, context: Any) -> job_pb2.ListFiguresResponse:  # noqa: N802
        self._enter("ListFigures", request, context)
        self._find(request.name, context)
        newer = [one for one in self.figures if one.step > request.after_step]
        return job_pb2.ListFiguresResponse(figures=newer[: min(request.limit or 1000, 7)])  # every list needs several

    def ListNodes(self, request: Any, context: Any) -> job_pb2.ListNodesResponse:  # noqa: N802
        self._enter("ListNodes", request, context)
        return job_pb2.ListNodesResponse(nodes=self.nodes)

    def GetVersion(self, request: Any, context: Any) -> job_pb2.GetVersionResponse:  # noqa: N802
        self._enter("GetVersion", request, context)
        store = self.store_status if request.store_within_s else None
        return job_pb2.GetVersionResponse(
            version="9.9", wire_version=1, epoch=3, pid=7, store="memory", store_status=store
        )

    def _ticks(self, context: grpc.ServicerContext) -> Iterator[None]:
        while context.is_active() and not self._stopping:
            yield
            time.sleep(0.01)
