"""``JobService``: what people and tools call."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from google.protobuf import json_format

from trainctl.controller.access.caller import Role, calling
from trainctl.controller.agents.agent import Agent
from trainctl.controller.agents.registry import AgentRegistry
from trainctl.controller.domain.explain import explain
from trainctl.controller.domain.shown_figures import shown_figures
from trainctl.controller.domain.spec.yaml_text import MAX_BYTES
from trainctl.controller.jobs.book import JobBook, is_live
from trainctl.controller.jobs.entry import JobEntry
from trainctl.controller.jobs.job_message import job_message, records_of
from trainctl.controller.jobs.presence import missing_checkpoints
from trainctl.controller.jobs.submission import Submissions
from trainctl.controller.jobs.verbs import Verbs
from trainctl.controller.leadership import Leadership
from trainctl.controller.reconciler import Reconciler
from trainctl.controller.rpc.kept_logs import kept_logs
from trainctl.controller.rpc.log_relay import LogQuery, LogRelay
from trainctl.controller.rpc.node_message import node_message
from trainctl.controller.rpc.pages import MAX_SIZE, page
from trainctl.controller.rpc.store_message import store_message
from trainctl.controller.rpc.verb_service import VerbService
from trainctl.controller.steady_clock import SteadyClock
from trainctl.controller.store.trial import StoreTrial
from trainctl.core.errors import UsageError
from trainctl.core.ids import DEFAULT_TENANT
from trainctl.protos.convert import record_to_message
from trainctl.protos.v1 import job_pb2, records_pb2
from trainctl.protos.version import WIRE_VERSION, package_version

WATCH_INTERVAL_S = 0.2
"""Shortest time between two messages of a watch that has no new events to tell."""
WATCH_IDLE_S = 1.0
"""Longest time between two: the job's clocks go on although nothing happens."""
LOGS_LINGER_S = 1.0
"""A follower of an ended job waits so long for the last lines."""
MAX_SPEC_BYTES = MAX_BYTES

Context = Any
"""``grpc.aio.ServicerContext`` of whatever call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ControllerFacts:
    """What ``GetVersion`` tells beside versions.

    Attributes:
        leadership: of this term.
        store: where the state is, without what only its owner may know.
        trial: of that store.
    """

    leadership: Leadership
    store: str
    trial: StoreTrial


class JobService(VerbService):
    """Thin: every method finds the job, asks the part that knows, and makes a message of the answer."""

    def __init__(
        self,
        *,
        book: JobBook,
        agents: AgentRegistry,
        submissions: Submissions,
        verbs: Verbs,
        reconciler: Reconciler,
        logs: LogRelay,
        clock: SteadyClock,
        facts: ControllerFacts,
    ) -> None:
        super().__init__(verbs, show=self._job, show_node=self._node_named, look_at_all=reconciler.look_at_all)
        self._book = book
        self._agents = agents
        self._submissions = submissions
        self._logs = logs
        self._clock = clock
        self._facts = facts

    async def CreateJob(self, request: job_pb2.CreateJobRequest, context: Context) -> job_pb2.CreateJobResponse:  # noqa: N802
        """Checks and accepts a job; the same request id has no second effect."""
        if request.job.ByteSize() > MAX_SPEC_BYTES:
            raise UsageError(
                f"job: expected at most {MAX_SPEC_BYTES // 1024} KiB, found {request.job.ByteSize()} bytes",
                hint="put large things into files, and name those",
            )
        wire = json_format.MessageToDict(request.job)
        done = await self._submissions.submit(
            wire, request.request_id, validate_only=request.validate_only, owner=calling().name
        )
        job = self._job(done.entry) if done.entry is not None else None
        return job_pb2.CreateJobResponse(job=job, plan=done.plan)

    async def GetJob(self, request: job_pb2.GetJobRequest, context: Context) -> job_pb2.GetJobResponse:  # noqa: N802
        """One job by name or uid."""
        return job_pb2.GetJobResponse(job=self._job(self._find(request)))

    async def ListJobs(self, request: job_pb2.ListJobsRequest, context: Context) -> job_pb2.ListJobsResponse:  # noqa: N802
        """Jobs of a tenant, oldest first, in pages."""
        tenant = request.tenant or DEFAULT_TENANT
        entries = [entry for entry in self._book.entries() if entry.state.tenant == tenant]
        chosen, token = page(
            entries, lambda e: (e.state.submitted_s, e.state.uid), size=request.page_size, token=request.page_token
        )
        return job_pb2.ListJobsResponse(jobs=[self._job(entry) for entry in chosen], next_page_token=token)

    async def WatchJob(  # noqa: N802
        self, request: job_pb2.WatchJobRequest, context: Context
    ) -> AsyncIterator[job_pb2.WatchJobResponse]:
        """The job now, then at each event and at most five times a second otherwise; ends when the job has ended."""
        entry = self._find(request)
        seen = entry.journal.newest
        while True:
            changed = entry.changed.next()
            live = is_live(entry.state)
            events = [record_to_message(event, job_pb2.Event) for event in entry.journal.after(seen)]
            seen = entry.journal.newest
            yield job_pb2.WatchJobResponse(job=self._job(entry), events=events)
            if not live:
                return
            await self._news(entry, changed, seen)

    async def ListEvents(self, request: job_pb2.ListEventsRequest, context: Context) -> job_pb2.ListEventsResponse:  # noqa: N802
        """Events after a revision, oldest first."""
        limit = _limit(request.limit)
        found = self._find(request).journal.after(request.after_revision, limit)
        return job_pb2.ListEventsResponse(events=[record_to_message(event, job_pb2.Event) for event in found])

    async def WatchEvents(  # noqa: N802
        self, request: job_pb2.WatchEventsRequest, context: Context
    ) -> AsyncIterator[job_pb2.WatchEventsResponse]:
        """Every event after a revision, in order, without a gap; ends behind the last event of an ended job."""
        entry = self._find(request)
        seen = request.after_revision
        while True:
            changed = entry.changed.next()
            live = is_live(entry.state)
            for event in entry.journal.after(seen):
                seen = event.revision
                yield job_pb2.WatchEventsResponse(event=record_to_message(event, job_pb2.Event))
            if not live:
                return
            await changed.wait()

    async def StreamLogs(  # noqa: N802
        self, request: job_pb2.StreamLogsRequest, context: Context
    ) -> AsyncIterator[job_pb2.StreamLogsResponse]:
        """Lines of running and of ended workers, relayed from the agents; else from the job's records."""
        if request.tail_lines < 0:
            raise UsageError(f"tail_lines: expected 0 (all) or more, found {request.tail_lines}")
        entry = self._find(request)
        follow = request.follow and is_live(entry.state)
        query = LogQuery(
            job_uid=entry.state.uid,
            slots=tuple(request.slots),
            incarnation=request.incarnation,
            tail_lines=request.tail_lines,
            since_s=request.since_s,
            follow=follow,
        )
        positions = {(p.slot, p.incarnation): p.line for p in request.positions}
        reader = self._logs.open(query, positions, request.begun_nodes)
        try:
            while reader.open_at or follow:
                live = is_live(entry.state)
                chunk = await reader.next(LOGS_LINGER_S)
                if chunk is not None:
                    yield chunk
                elif follow and not live:
                    return
            while (chunk := await reader.next(0.0)) is not None:
                yield chunk
            if not follow:
                records = records_of(entry.state)
                for kept in await asyncio.to_thread(kept_logs, records, query, reader.positions):
                    yield kept
        finally:
            self._logs.close(reader)

    async def ListFigures(self, request: job_pb2.ListFiguresRequest, context: Context) -> job_pb2.ListFiguresResponse:  # noqa: N802
        """Step figures of the surviving lineage, by step."""
        found = self._find(request).figures.after(request.after_step, _limit(request.limit))
        return job_pb2.ListFiguresResponse(figures=[record_to_message(one, records_pb2.StepFigures) for one in found])

    async def ExplainJob(self, request: job_pb2.ExplainJobRequest, context: Context) -> job_pb2.ExplainJobResponse:  # noqa: N802
        """Why the job is where it is."""
        entry = self._find(request)
        figures = shown_figures(entry.state, self._agents.view(), since_s=self._book.since_s)
        sentences = list(explain(entry.state, self._clock.now_s(), figures=figures))
        if entry.trouble is not None:
            sentences.append(f"the controller has trouble with this job: {entry.trouble.message}")
        recoveries = [record_to_message(one, job_pb2.Recovery) for one in entry.state.recoveries]
        return job_pb2.ExplainJobResponse(sentences=sentences, recoveries=recoveries)

    async def ListCheckpoints(  # noqa: N802
        self, request: job_pb2.ListCheckpointsRequest, context: Context
    ) -> job_pb2.ListCheckpointsResponse:
        """Committed checkpoints, oldest first, and those that were refused."""
        state = self._find(request).state
        refs = [record_to_message(ref, records_pb2.CheckpointRef) for ref in state.checkpoints]
        uri = state.spec.spec.checkpoint.uri or f"{state.workdir}/checkpoints"
        known = (*state.checkpoints, *(one.ref for one in state.refused))
        missing = await asyncio.to_thread(missing_checkpoints, known)
        return job_pb2.ListCheckpointsResponse(
            checkpoints=refs,
            uri=uri,
            missing=missing,
            pinned=[ref.uri for ref in state.checkpoints if ref.uri in state.pinned],
            removing=[record_to_message(ref, records_pb2.CheckpointRef) for ref in state.doomed],
            refused=[record_to_message(one, job_pb2.RefusedCheckpoint) for one in state.refused],
        )

    async def ListNodes(self, request: job_pb2.ListNodesRequest, context: Context) -> job_pb2.ListNodesResponse:  # noqa: N802
        """Every node that ever registered an agent."""
        return job_pb2.ListNodesResponse(nodes=[self._node(agent) for agent in self._agents.agents()])

    async def GetVersion(self, request: job_pb2.GetVersionRequest, context: Context) -> job_pb2.GetVersionResponse:  # noqa: N802
        """Who answers; whoever asks for it hears how the store is, too."""
        leadership, store = self._facts.leadership, None
        if request.store_within_s > 0:
            look = await self._facts.trial.look(request.store_within_s)
            store = store_message(look, leadership.changes, jobs_in_doubt=len(self._book.doubtful()))
        return job_pb2.GetVersionResponse(
            version=package_version(),
            wire_version=WIRE_VERSION,
            epoch=leadership.epoch,
            pid=os.getpid(),
            store=self._facts.store,
            time_s=self._clock.now_s(),
            doubt=self._agents.doubt,
            store_status=store,
        )

    def _find(self, request: Any) -> JobEntry:
        """The job that a request with ``tenant`` and ``name`` means."""
        if not request.name:
            raise UsageError("name: expected the name or uid of a job, found nothing")
        return self._book.find(request.tenant or DEFAULT_TENANT, request.name)

    def _job(self, entry: JobEntry) -> job_pb2.Job:
        job = job_message(
            entry.state,
            self._agents.view(),
            now_s=self._clock.now_s(),
            revision=entry.revision,
            since_s=self._book.since_s,
        )
        newest = entry.journal.last
        if newest is not None:
            job.last_event.CopyFrom(record_to_message(newest, job_pb2.Event))
        if entry.trouble is not None:
            job.status.conditions.append(record_to_message(entry.trouble, job_pb2.Condition))
        return job

    async def _news(self, entry: JobEntry, changed: asyncio.Event, seen: int) -> None:
        """Waits for an event, or for the next time to show figures."""
        deadline_s = self._clock.monotonic_s() + WATCH_IDLE_S
        quiet_until_s = self._clock.monotonic_s() + WATCH_INTERVAL_S
        while entry.journal.newest == seen and (now_s := self._clock.monotonic_s()) < deadline_s:
            try:
                async with asyncio.timeout(deadline_s - now_s):
                    await changed.wait()
            except TimeoutError:
                return
            deadline_s = min(deadline_s, quiet_until_s)
            changed = entry.changed.next()

    def _node_named(self, name: str) -> job_pb2.NodeStatus:
        return next(self._node(agent) for agent in self._agents.agents() if agent.registration.node == name)

    def _node(self, agent: Agent) -> job_pb2.NodeStatus:
        view = self._agents.view().agent(agent.incarnation)
        assert view is not None
        used = sum(entry.uses().get(agent.incarnation, 0) for entry in self._book.entries())
        shown = calling()
        states = [state for state in self._book.states() if shown.may(Role.VIEWER, state.tenant)]
        return node_message(agent, view, self._agents.mark_of(view.node), states, used=used)


def _limit(limit: int) -> int:
    if limit < 0:
        raise UsageError(f"limit: expected 0 (the default, {MAX_SIZE}) to {MAX_SIZE}, found {limit}")
    return min(limit or MAX_SIZE, MAX_SIZE)
