"""Taking a job in: checked as a whole first, then written in one transaction together with its request id."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from trainctl.controller import keys
from trainctl.controller.agents.registry import AgentRegistry
from trainctl.controller.domain.events import EventDraft
from trainctl.controller.domain.job_state import JobState
from trainctl.controller.domain.spec import effective, job_from_wire, no_effect
from trainctl.controller.domain.submit import new_job
from trainctl.controller.identities import new_uid
from trainctl.controller.jobs.book import JobBook, RevisionMovedError, is_live
from trainctl.controller.jobs.checks import check_outside
from trainctl.controller.jobs.entry import JobEntry
from trainctl.controller.jobs.foreign_folders import check_folders
from trainctl.controller.jobs.preview import preview
from trainctl.controller.jobs.requests import RequestLog, digest_of
from trainctl.controller.jobs.room import check_room
from trainctl.controller.store.port import Compare, StateStore, Target
from trainctl.controller.tasks import to_the_end
from trainctl.core.errors import ConflictError, FencedError
from trainctl.core.records.spec import TrainJob
from trainctl.core.texts import quoted


@dataclass(frozen=True, slots=True, kw_only=True)
class Submitted:
    """The job, or with ``validate_only`` what would be started."""

    entry: JobEntry | None
    plan: tuple[str, ...] = ()


class Submissions:
    """Creates jobs.

    Args:
        book: where they go.
        agents: for the preview.
        store: for request records.
        jobs_folder: each job gets a work folder in it.
        now_s: Unix seconds.
        chance: makes the uids of jobs.
    """

    def __init__(
        self, book: JobBook, agents: AgentRegistry, store: StateStore, jobs_folder: Path, now_s: Callable[[], float],
        chance: Random,
    ) -> None:  # fmt: skip
        self._book = book
        self._agents = agents
        self._store = store
        self._requests = RequestLog(store)
        self._jobs_folder = jobs_folder
        self._now_s = now_s
        self._chance = chance
        self._lock = asyncio.Lock()

    async def submit(
        self, wire: Mapping[str, Any], request_id: str, *, validate_only: bool, owner: str = ""
    ) -> Submitted:
        """Accepts a job.

        Args:
            wire: the job.
            request_id: under which it has its effect once; empty: none.
            validate_only: nothing is made.
            owner: name of who submits it.

        Raises:
            SpecError: something is wrong with it; lists all problems.
            ConflictError: an unfinished job has this name.
            StoreFullError: there is too little room for new work.
            RequestIdReusedError: the request id was used for another body.
        """
        job = job_from_wire(wire)
        digest = digest_of("CreateJob", json.dumps(wire, sort_keys=True).encode())
        if not validate_only:
            replay = await self._replay(job.metadata.tenant, request_id, digest)
            if replay is not None:
                return Submitted(entry=replay)
            await check_room(self._store)
        spec = effective(job)
        check_folders(spec, self._book.states(), jobs_folder=self._jobs_folder)
        resume = await asyncio.to_thread(check_outside, spec)
        uid = "<uid>" if validate_only else new_uid(self._now_s(), self._chance)
        workdir = str(self._jobs_folder / uid)
        if validate_only:
            self._check_name(job)
            view = self._agents.view()
            free = self._book.free_slots(view.agents)
            ref, skipped = (resume.ref, resume.passed_over) if resume is not None else (None, ())
            plan = (*preview(spec, view, free, workdir=workdir, resume=ref), *no_effect(spec), *skipped)
            return Submitted(entry=None, plan=plan)
        state, events = new_job(uid, job, workdir=workdir, now_s=self._now_s(), resume=resume, owner=owner)
        return Submitted(entry=await to_the_end(self._write(state, events, request_id, digest)))

    async def _write(self, state: JobState, events: tuple[EventDraft, ...], request_id: str, digest: str) -> JobEntry:
        """One at a time: of two that came together with one request id, the second finds what the first made."""
        async with self._lock:
            replay = await self._replay(state.tenant, request_id, digest)
            if replay is not None:
                return replay
            return await self._create(state, events, request_id, digest)

    async def _create(self, state: JobState, events: tuple[EventDraft, ...], request_id: str, digest: str) -> JobEntry:
        """One transaction: the name must not have moved, the request id must be new."""
        name = state.name
        name_key = keys.name(state.tenant, name)
        holder = await self._store.get(name_key)
        if holder is not None:  # perhaps one whose creation seemed to have failed
            await self._book.adopt(state.tenant, str(keys.decode(holder.value)))
        self._check_name(state.spec)
        unmoved = Compare(name_key, Target.MOD_REVISION, holder.mod_revision if holder else 0)
        new, noted = await self._requests.note(state.tenant, request_id, digest, method="CreateJob", subject=state.uid)
        folder = Path(state.workdir)
        await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)  # later it might bring a deleted job's back
        try:
            entry = await self._book.create(state, events, compares=(unmoved, *new), operations=noted)
            if entry is None:
                message = f"job {quoted(name)}: its name or request id was taken at this moment"
                raise RevisionMovedError(message, hint="try again")
        except (FencedError, RevisionMovedError):
            await asyncio.to_thread(folder.rmdir)
            raise
        return entry

    async def _replay(self, tenant: str, request_id: str, digest: str) -> JobEntry | None:
        """The job that this request made before."""
        uid = await self._requests.find(tenant, request_id, digest)
        if uid is None:
            return None
        return await self._book.adopt(tenant, uid) or self._book.made(uid)

    def _check_name(self, job: TrainJob) -> None:
        state = self._book.named(job.metadata.tenant, job.metadata.name)
        if state is not None and is_live(state):
            raise _name_taken(job.metadata.tenant, job.metadata.name)


def _name_taken(tenant: str, name: str) -> ConflictError:
    return ConflictError(
        f"job {quoted(name)} exists in tenant {tenant} and has not ended",
        hint=f"choose another name (--name), or end it: trainctl cancel {name}",
    )
