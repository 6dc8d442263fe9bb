"""The book of jobs: the pure core decides a change, one transaction persists it, and only then it takes effect."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from trainctl.controller import keys
from trainctl.controller.domain.events import EventDraft
from trainctl.controller.domain.job_state import JobState
from trainctl.controller.domain.reconcile import Reconciliation, observe_figures
from trainctl.controller.domain.states import TERMINAL
from trainctl.controller.domain.term import Term, noted
from trainctl.controller.domain.view import AgentViews
from trainctl.controller.jobs.deleted_job import DeletedJob
from trainctl.controller.jobs.entry import JobEntry
from trainctl.controller.jobs.figures import FigureLog
from trainctl.controller.jobs.free_slots import FreeSlots
from trainctl.controller.jobs.journal import JobEvent, Journal
from trainctl.controller.jobs.stored_records import batches, new_records, stored_journal
from trainctl.controller.leadership import Leadership
from trainctl.controller.store.port import (
    Compare,
    Delete,
    KeyValue,
    Operation,
    Put,
    StateStore,
    StoreUnavailableError,
    Target,
)
from trainctl.controller.stored import reading
from trainctl.controller.tasks import to_the_end
from trainctl.core.codec import to_wire
from trainctl.core.errors import ConflictError, NotFoundError
from trainctl.core.system.faults import FaultPlan
from trainctl.core.texts import quoted, shortened

_log = logging.getLogger(__name__)

Decide = Callable[[JobState], Reconciliation]
DOUBT_S = 15.0
"""How long a write without an answer may still take effect: longer than etcd keeps a request."""
Listener = Callable[[JobState | None, JobState, Sequence[JobEvent]], None]
"""Told after each change: the state before (None for a new job), the state now, the events."""


class RevisionMovedError(ConflictError):
    """Somebody else changed the key since it was read."""

    code = "REVISION_MOVED"


class JobBook:
    """All jobs of this installation.

    Args:
        store: read directly.
        leadership: written through.
        now_s: Unix seconds that never go back.
        figures_folder: where step figures are kept.
        faults: armed fault points.

    Attributes:
        term: in which it is written; None: nobody is told of it.
        doubted: set when a write had no answer; whoever settles that clears it.
    """

    def __init__(
        self,
        store: StateStore,
        leadership: Leadership,
        *,
        now_s: Callable[[], float],
        figures_folder: Path,
        faults: FaultPlan,
    ) -> None:
        self._store = store
        self._leadership = leadership
        self._now_s = now_s
        self._figures_folder = figures_folder
        self._faults = faults
        self._entries: dict[str, JobEntry] = {}
        self._live: dict[str, JobEntry] = {}
        self._names: dict[tuple[str, str], str] = {}
        self._deleted: dict[str, DeletedJob] = {}
        self._listeners: list[Listener] = []
        self.term: Term | None = None
        self.doubted = asyncio.Event()

    @property
    def since_s(self) -> float:
        """When the term began, Unix seconds; 0 if nobody said."""
        return self.term.since_s if self.term is not None else 0.0

    def doubtful(self) -> tuple[JobEntry, ...]:
        """Those of which it is not known whether the last write took effect, or yet will."""
        return tuple(entry for entry in self._entries.values() if entry.doubtful_until_s)

    def on_change(self, listener: Listener) -> None:
        """Registers a listener; it must not raise."""
        self._listeners.append(listener)

    async def load(self) -> float:
        """Reads all jobs; returns the newest time written down so far."""
        for item in (await self._store.range(keys.JOBS)).items:
            if item.key.endswith(keys.STATUS):
                self._take_in(item)
        newest_s = max((entry.state.progress.updated_s for entry in self._entries.values()), default=0.0)
        for item in (await self._store.range(keys.EVENTS)).items:
            uid = item.key.split("/")[-2]
            if uid in self._entries:
                with reading(item.key):
                    events = keys.decode(item.value)
                    self._entries[uid].journal.load(events)
                    newest_s = max(newest_s, *(float(event["timeS"]) for event in events))
        for item in (await self._store.range(keys.NAMES)).items:
            with reading(item.key):
                tenant, name = item.key.removeprefix(keys.NAMES).split("/")
                self._names[(tenant, name)] = str(keys.decode(item.value))
        for item in (await self._store.range(keys.DELETED)).items:
            with reading(item.key):
                gone = DeletedJob.from_stored(keys.decode(item.value))
                self._deleted[gone.uid] = gone
        return newest_s

    def _take_in(self, item: KeyValue) -> JobEntry:
        """A stored job, still without its events."""
        with reading(item.key):
            state = JobState.from_wire(keys.decode(item.value))
        entry = self._enter(self._entry(state, item.mod_revision))
        entry.figures.load()
        entry.follow_lineage()
        return entry

    def _enter(self, entry: JobEntry) -> JobEntry:
        self._entries[entry.state.uid] = entry
        if is_live(entry.state):
            self._live[entry.state.uid] = entry
        return entry

    async def catch_up(self) -> None:
        """Shows the jobs the figures that are in their files, but came after the newest persisted state."""
        for entry in self.entries():
            missed = entry.figures.after(entry.state.progress.step)
            if missed and is_live(entry.state):
                look = partial(observe_figures, figures=missed, now_s=self._now_s(), live=False)
                await self.apply(entry.state.uid, look)

    def states(self) -> tuple[JobState, ...]:
        """All jobs."""
        return tuple(entry.state for entry in tuple(self._entries.values()))

    def newest_by_name(self) -> tuple[JobState, ...]:
        """One job for each name: names may be used again, but a metric can only show one."""
        newest = {(entry.state.tenant, entry.state.name): entry.state for entry in self.entries()}
        return tuple(newest.values())

    def entries(self) -> tuple[JobEntry, ...]:
        """All jobs, oldest first."""
        return tuple(
            sorted(tuple(self._entries.values()), key=lambda entry: (entry.state.submitted_s, entry.state.uid))
        )

    def live(self) -> tuple[JobEntry, ...]:
        """Those that have not ended, in no order: asked for at every heartbeat."""
        return tuple(self._live.values())

    def entry(self, uid: str) -> JobEntry:
        """A job by uid.

        Raises:
            NotFoundError: there is none.
        """
        try:
            return self._entries[uid]
        except KeyError:
            raise NotFoundError(
                f"no job with uid {shortened(uid)}", hint="`trainctl get jobs` lists all jobs"
            ) from None

    def made(self, uid: str) -> JobEntry:
        """The job that a request took effect on, which is now sent again.

        Raises:
            JobDeletedError: it has been deleted since.
            NotFoundError: there is none.
        """
        if uid not in self._entries and uid in self._deleted:
            raise self._deleted[uid].error()
        return self.entry(uid)

    def find(self, tenant: str, name: str) -> JobEntry:
        """The newest job of this name, or the job with this uid.

        Raises:
            NotFoundError: there is none.
        """
        entry = self._entries.get(self._names.get((tenant, name), name))
        if entry is None or entry.state.tenant != tenant:
            raise NotFoundError(f"no job {quoted(name)} in tenant {tenant}", hint="`trainctl get jobs` lists all jobs")
        return entry

    def owner_of(self, tenant: str, name: str) -> str | None:
        """Who submitted the job that ``find`` finds; None if there is none."""
        try:
            return self.find(tenant, name).state.owner
        except NotFoundError:
            return None

    def named(self, tenant: str, name: str) -> JobState | None:
        """The newest job of this name."""
        uid = self._names.get((tenant, name))
        return self._entries[uid].state if uid in self._entries else None

    def deleted(self) -> tuple[str, ...]:
        """Uids of jobs that were deleted lately, for agents that have not heard of it."""
        return tuple(sorted(self._deleted))

    def knows(self, uid: str) -> bool:
        """Whether there is a job with this uid."""
        return uid in self._entries

    def free_slots(self, agents: AgentViews) -> FreeSlots:
        """Slots that no job uses, by agent incarnation."""
        return FreeSlots(agents, lambda: (entry.uses() for entry in tuple(self._entries.values())))

    async def create(
        self,
        state: JobState,
        drafts: Sequence[EventDraft],
        *,
        compares: Sequence[Compare],
        operations: Sequence[Operation],
    ) -> JobEntry | None:
        """Writes a new job, its name, its first events and what the caller adds; None if a compare does not hold."""
        state = replace(state, epoch=self._leadership.epoch, epoch_since_s=self._now_s())
        entry = self._entry(state, 0)
        batch, event_puts = entry.journal.prepare(drafts, self._now_s())
        key, value = keys.status(state.tenant, state.uid), keys.encode(state.to_wire())
        name = Put(keys.name(state.tenant, state.name), keys.encode(state.uid))
        try:
            result = await self._leadership.txn(
                (*compares, Compare(key, Target.MOD_REVISION, 0)), (Put(key, value), name, *event_puts, *operations)
            )
        except StoreUnavailableError:
            found = await self._store.get(key)
            if found is None:  # or not yet: whoever asks again under the same request id, or name, finds it
                raise
            entry.revision = found.mod_revision
        else:
            if not result.succeeded:
                return None
            entry.revision = result.revision
        if state.uid in self._entries:  # the same request, sent again, found it before this one had its answer
            return self._entries[state.uid]
        entry.journal.commit(batch)
        self._enter(entry)
        self._names[(state.tenant, state.name)] = state.uid
        self._tell(entry, None, batch)
        return entry

    async def adopt(self, tenant: str, uid: str) -> JobEntry | None:
        """A job that is in the store although its creation seemed to have failed; None if it is not there either."""
        found = None if uid in self._entries else await self._store.get(keys.status(tenant, uid))
        if found is None or uid in self._entries:
            return self._entries.get(uid)
        journal = await stored_journal(self._store, tenant, uid, epoch=self._leadership.epoch)
        if uid in self._entries:  # somebody else took it in, and may have changed it since
            return self._entries[uid]
        entry = self._take_in(found)
        entry.journal = journal
        self._names[(tenant, entry.state.name)] = uid
        self._tell(entry, None, entry.journal.after(0))
        return entry

    async def apply(
        self, uid: str, decide: Decide, *, compares: Sequence[Compare] = (), operations: Sequence[Operation] = ()
    ) -> Reconciliation:
        """Lets ``decide`` judge the job's newest state and makes the result true; one at a time for each job.

        Once begun it completes, even if the caller is cancelled.

        Args:
            uid: of the job.
            decide: the decision; what it raises changes nothing.
            compares: what must hold beside the job's revision.
            operations: written in the same transaction, also if the job itself does not change.

        Raises:
            NotFoundError: no such job.
            FencedError: this controller no longer leads.
            RevisionMovedError: the stored state is not the one in memory; memory was corrected.
            StoreUnavailableError: nothing is known to be written; memory is unchanged.
        """
        return await to_the_end(self._apply(self.entry(uid), decide, compares, operations))

    async def _apply(
        self, entry: JobEntry, decide: Decide, compares: Sequence[Compare], operations: Sequence[Operation]
    ) -> Reconciliation:
        async with entry.lock:
            if entry.state.uid not in self._entries:
                raise NotFoundError(f"job {entry.state.name} was deleted at this moment")
            if entry.doubtful_until_s:
                await self._resolve(entry)
            before = entry.state
            result = decide(before)
            if result.state == before and not result.events and not operations:
                return result
            if not result.durable:
                entry.state = result.state
                entry.changed.tell()
                return result
            if self.term is not None:
                result = noted(before, result, self.term, self._now_s())
            batch, event_puts = entry.journal.prepare(result.events, self._now_s())
            entry.pending = result.state
            try:
                await self._persist(entry, result, compares, (*event_puts, *operations))
            finally:
                entry.pending = None
            entry.state = result.state
            entry.journal.commit(batch)
            self._follow(entry)
            self._tell(entry, before, batch)
            return result

    def _follow(self, entry: JobEntry) -> None:
        """Another state is known to be stored; nothing that was written before can take effect any more."""
        entry.unsure = ()
        if not is_live(entry.state):  # which is for ever
            self._live.pop(entry.state.uid, None)
        entry.follow_lineage()

    async def _persist(
        self, entry: JobEntry, result: Reconciliation, compares: Sequence[Compare], extra: Sequence[Operation]
    ) -> None:
        state = result.state
        key, value = keys.status(state.tenant, state.uid), keys.encode(state.to_wire())
        self.reach("controller.before_txn", state, result.events)
        try:
            txn = await self._leadership.txn(
                (Compare(key, Target.MOD_REVISION, entry.revision), *compares),
                (Put(key, value), *extra, *new_records(entry.state, state)),
            )
        except StoreUnavailableError:
            # Unknown outcome: only reading tells. The value holds what was decided, so finding it means "written".
            entry.doubtful_until_s = self._now_s() + DOUBT_S
            entry.unsure = (*entry.unsure, state)
            self.doubted.set()
            found = await self._store.get(key)
            if found is None or found.mod_revision == entry.revision or found.value != value:
                raise
            entry.revision, entry.doubtful_until_s = found.mod_revision, 0.0
        else:
            if not txn.succeeded:
                await self._reload(entry)
                raise RevisionMovedError(f"job {state.name}: its stored state moved on from revision {entry.revision}")
            entry.revision = txn.revision
        self.reach("controller.after_txn", state, result.events)

    async def confirm_leading(self) -> None:
        """See ``Leadership.confirm``."""
        await self._leadership.confirm()

    async def is_stored(self, state: JobState) -> bool:
        """Whether the store, not this memory, knows the job."""
        return await self._store.get(keys.status(state.tenant, state.uid)) is not None

    async def forget(self, uid: str) -> None:
        """Takes a job that has ended out of the store, its events and records first, and out of memory.

        Interrupted anywhere it can be done again: the job's state, which says that it is to be deleted, goes last.
        """
        await to_the_end(self._forget(self.entry(uid)))

    async def _forget(self, entry: JobEntry) -> None:
        async with entry.lock:
            state = entry.state
            status, name = keys.status(state.tenant, state.uid), keys.name(state.tenant, state.name)
            for prefix in (keys.all_events(state.tenant, state.uid), keys.all_of_job(state.tenant, state.uid)):
                for group in batches([i.key for i in (await self._store.range(prefix)).items if i.key != status]):
                    await self._leadership.txn((), [Delete(key) for key in group])
            named = await self._store.get(name)
            own = named is not None and keys.decode(named.value) == state.uid
            lease = await self._store.lease_grant(keys.DELETED_KEPT_S)
            gone = DeletedJob.of(state, self._now_s())
            noted = Put(keys.deleted(state.tenant, state.uid), keys.encode(to_wire(gone)), lease)
            await self._leadership.txn((), (Delete(status), noted, *([Delete(name)] if own else [])))
            del self._entries[state.uid]
            self._live.pop(state.uid, None)
            self._deleted[state.uid] = gone
            if self._names.get((state.tenant, state.name)) == state.uid:
                del self._names[(state.tenant, state.name)]
            entry.changed.tell()

    async def _resolve(self, entry: JobEntry) -> None:
        """After a write of unknown outcome: what is stored counts; a write that is still on its way may yet arrive."""
        settled = self._now_s() >= entry.doubtful_until_s
        found = await self._store.get(_status_key(entry))
        if found is None or found.mod_revision != entry.revision:
            await self._reload(entry)
            settled = True
        if settled:
            entry.doubtful_until_s, entry.unsure = 0.0, ()

    async def _reload(self, entry: JobEntry) -> None:
        """Memory did not follow the store: takes over what is there, the events too, and tells everybody."""
        key, before, seen = _status_key(entry), entry.state, entry.journal.newest
        found = await self._store.get(key)
        if found is None:
            raise NotFoundError(f"job {before.name}: its state is no longer in the state store")
        with reading(key):
            state = JobState.from_wire(keys.decode(found.value))
        entry.journal = await stored_journal(
            self._store, entry.state.tenant, entry.state.uid, epoch=self._leadership.epoch
        )
        newer = max(before.progress, state.progress, key=lambda progress: (progress.lineage, progress.step))
        entry.state, entry.revision = replace(state, progress=newer), found.mod_revision
        self._follow(entry)
        self._tell(entry, before, [event for event in entry.journal.after(0) if event.revision > seen])

    def reach(self, point: str, state: JobState, events: Sequence[EventDraft] = ()) -> None:
        """Says that a fault point was reached."""
        for event in events or (EventDraft(type="", reason="", message=""),):
            self._faults.reach(point, job=state.name, event=event.type, phase=state.phase.value)

    def _entry(self, state: JobState, revision: int) -> JobEntry:
        figures = FigureLog(self._figures_folder / f"{state.uid}.jsonl")
        return JobEntry(state, revision, Journal(state.tenant, state.uid, epoch=self._leadership.epoch), figures)

    def _tell(self, entry: JobEntry, before: JobState | None, batch: Sequence[JobEvent]) -> None:
        entry.changed.tell()
        for event in batch:
            _log.info(event.message, extra={"job": entry.state.name, "event": event.type, "reason": event.reason})
        for listener in self._listeners:
            listener(before, entry.state, batch)


def _status_key(entry: JobEntry) -> str:
    return keys.status(entry.state.tenant, entry.state.uid)


def is_live(state: JobState) -> bool:
    """It has not ended."""
    return state.phase not in TERMINAL
