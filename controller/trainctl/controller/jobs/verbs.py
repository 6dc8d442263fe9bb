"""Changes that people ask for: decided by the pure core on the newest state, written together with the request id."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from weakref import WeakValueDictionary

from trainctl.controller import keys
from trainctl.controller.agents.agent import NodeMark
from trainctl.controller.agents.registry import AgentRegistry
from trainctl.controller.domain.job_records import RefusedCheckpoint
from trainctl.controller.domain.job_state import JobState
from trainctl.controller.domain.reconcile import (
    Reconciliation,
    checkpoint_at,
    checkpoint_of,
    lost_steps,
    refused_checkpoint,
    request_accept,
    request_checkpoint_removal,
    request_delete,
    request_pin,
    request_refuse,
    request_resume,
    request_rollback,
    rollback_target,
)
from trainctl.controller.domain.states import JobPhase
from trainctl.controller.jobs.book import JobBook
from trainctl.controller.jobs.checkpoint_files import CheckpointFiles
from trainctl.controller.jobs.entry import JobEntry
from trainctl.controller.jobs.presence import missing_checkpoints
from trainctl.controller.jobs.remains import refuse_if_needed
from trainctl.controller.jobs.requests import RequestLog, digest_of
from trainctl.controller.leadership import Leadership
from trainctl.controller.store.port import Compare, Operation, StateStore
from trainctl.controller.tasks import to_the_end
from trainctl.core.errors import CheckpointError, FencedError, TrainctlError, UnavailableError
from trainctl.core.ids import DEFAULT_TENANT
from trainctl.core.records.generation import CheckpointRef


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A request as it came: what it is about, and what tells it from others under the same id."""

    method: str
    tenant: str
    subject: str
    request_id: str
    body: bytes

    @property
    def digest(self) -> str:
        """Of all that it says."""
        return digest_of(self.method, self.body)


@dataclass(frozen=True, slots=True, kw_only=True)
class RollbackPlan:
    """What a roll-back goes back to, and what it gives up."""

    target: CheckpointRef
    lost_steps: int


class Verbs:
    """Carries requests out, one at a time, so that a repeated one finds what the first did.

    Args:
        book: the jobs.
        agents: the nodes.
        store: read directly.
        leadership: written through.
        now_s: Unix seconds.
        files: of the checkpoints.
    """

    def __init__(
        self,
        book: JobBook,
        agents: AgentRegistry,
        store: StateStore,
        leadership: Leadership,
        now_s: Callable[[], float],
        files: CheckpointFiles,
    ) -> None:
        self._book = book
        self._agents = agents
        self._store = store
        self._requests = RequestLog(store)
        self._leadership = leadership
        self._now_s = now_s
        self._files = files
        self._lock = asyncio.Lock()
        self._pinning: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def change(self, call: Call, decide: Callable[[JobState, float], Reconciliation]) -> JobEntry:
        """Lets ``decide`` change a job, unless this request did so before.

        Raises:
            NotFoundError: there is no such job (any more).
            TrainctlError: what ``decide`` raises; nothing is changed then.
        """

        async def act(compares: tuple[Compare, ...], operations: tuple[Operation, ...]) -> str:
            entry = self._book.find(call.tenant, call.subject)
            await self._book.apply(
                entry.state.uid, lambda s: decide(s, self._now_s()), compares=compares, operations=operations
            )
            return entry.state.uid

        uid = await self._once(call, act, lambda: self._book.find(call.tenant, call.subject).state.uid)
        return self._book.made(uid)

    async def rollback(self, call: Call, to_step: int | None, *, validate_only: bool) -> tuple[JobEntry, RollbackPlan]:
        """Goes back to a checkpoint that was looked at first: with one that cannot be loaded nothing is changed.

        Raises:
            CheckpointError: it is damaged or gone.
            PreconditionError: there is no such checkpoint, or the job is in no phase to go back.
        """
        done = await self._done(call)
        if done is not None:
            return done, RollbackPlan(target=done.state.checkpoints[-1], lost_steps=0)
        state = self._book.find(call.tenant, call.subject).state
        target = rollback_target(state, to_step)
        plan = RollbackPlan(target=target, lost_steps=lost_steps(state, target))
        await asyncio.to_thread(self._files.look_at, target)
        if validate_only:
            return self._book.entry(state.uid), plan
        return await self.change(call, partial(request_rollback, target=target)), plan

    async def resume(self, call: Call) -> JobEntry:
        """Lets a paused job go on, from a checkpoint that was looked at first: it stays paused where that is away.

        Raises:
            CheckpointError: it is damaged, gone, or on a storage that is away for now.
            IllegalTransitionError: the job is not paused and not about to be.
        """
        done = await self._done(call)
        if done is not None:
            return done
        state = self._book.find(call.tenant, call.subject).state
        source = state.checkpoints[-1] if state.checkpoints else state.resume
        if state.phase is JobPhase.PAUSED and source is not None and not state.spec.spec.runs_command:
            try:
                await asyncio.to_thread(self._files.look_at, source)
            except CheckpointError as error:
                raise CheckpointError(
                    f"job {state.name} stays paused: {error}",
                    hint="bring its files back and resume again, or give it up for an older one: trainctl rollback "
                    + state.name,
                ) from error
        return await self.change(call, request_resume)

    async def delete(self, call: Call, *, force: bool, keep_checkpoints: bool, by: str = "") -> str:
        """Writes down that a job shall go; returns its uid, also when it is gone already."""

        async def act(compares: tuple[Compare, ...], operations: tuple[Operation, ...]) -> str:
            state = self._book.find(call.tenant, call.subject).state
            others = [other for other in self._book.states() if other.uid != state.uid]
            if not keep_checkpoints:
                refuse_if_needed(state.checkpoints, others, instead="keep them with --keep-checkpoints, or ")
            await self._book.apply(
                state.uid,
                lambda s: request_delete(s, self._now_s(), keep_checkpoints=keep_checkpoints, force=force, by=by),
                compares=compares,
                operations=operations,
            )
            return state.uid

        return await self._once(call, act, lambda: self._book.find(call.tenant, call.subject).state.uid)

    async def remove_checkpoint(self, call: Call, step: int) -> JobEntry:
        """Writes down that a checkpoint shall go.

        Raises:
            NotFoundError: there is none of this step.
            PreconditionError: somebody needs it, or it is the last valid one.
        """

        async def act(compares: tuple[Compare, ...], operations: tuple[Operation, ...]) -> str:
            known = self._book.find(call.tenant, call.subject).state.checkpoints
            missing = await asyncio.to_thread(missing_checkpoints, known)
            state = self._book.find(call.tenant, call.subject).state
            others = [other for other in self._book.states() if other.uid != state.uid]
            refuse_if_needed([checkpoint_of(state, step)], others)
            await self._book.apply(
                state.uid,
                lambda s: request_checkpoint_removal(s, self._now_s(), step=step, missing=missing),
                compares=compares,
                operations=operations,
            )
            return state.uid

        uid = await self._once(call, act, lambda: self._book.find(call.tenant, call.subject).state.uid)
        return self._book.made(uid)

    async def pin(self, call: Call, step: int, *, pinned: bool) -> JobEntry:
        """Pins a checkpoint, or takes that back; the mark beside its files is what those who remove old ones see.

        The mark comes before the word in the store and goes after it: what is shown as pinned is.

        Raises:
            NotFoundError: there is none of this step.
            CheckpointError: its files are gone, or their storage refused.
        """
        state = (await self._done(call) or self._book.find(call.tenant, call.subject)).state
        return await to_the_end(self._pin(call, state.uid, checkpoint_of(state, step), pinned=pinned))

    async def _pin(self, call: Call, uid: str, ref: CheckpointRef, *, pinned: bool) -> JobEntry:
        """One at a time for each checkpoint: else the mark of a pin goes with the unpin before it."""
        async with self._pinning.setdefault(ref.uri, asyncio.Lock()):
            if pinned:
                await asyncio.to_thread(self._files.pin, ref)
            try:
                await self.change(call, partial(request_pin, step=ref.step, pinned=pinned))
            except (FencedError, UnavailableError):
                raise  # what was written, if anything, this controller does not know
            except TrainctlError:
                await self._match_mark(uid, ref)
                raise
            return await self._match_mark(uid, ref)

    async def _match_mark(self, uid: str, ref: CheckpointRef) -> JobEntry:
        """Takes the mark from a checkpoint that is not pinned after all, such as by a request that was sent again."""
        entry = self._book.entry(uid)
        if ref.uri not in entry.state.pinned:
            await self._release(entry.state, ref)
        return entry

    async def _release(self, state: JobState, ref: CheckpointRef) -> None:
        """Takes the mark away; puts it back if another leader may have pinned it anew: one too many does no harm."""
        await self._leadership.confirm()
        self._book.reach("controller.before_unpin", state)
        await asyncio.to_thread(self._files.unpin, ref)
        try:
            await self._leadership.confirm()
        except TrainctlError:
            await asyncio.to_thread(self._files.pin, ref)
            raise

    async def accept(self, call: Call, uri: str) -> JobEntry:
        """Takes the refusal of a checkpoint back, which the caller has found whole.

        Raises:
            NotFoundError: the job has refused none at this URI.
            CheckpointError: a file of it is missing or too short, or the storage refused: it stays refused.
        """
        done = await self._done(call)
        if done is not None:
            return done
        refused = refused_checkpoint(self._book.find(call.tenant, call.subject).state, uri)
        if refused is None:
            return await self.change(call, partial(request_accept, uri=uri))
        return await to_the_end(self._accept(call, refused))

    async def _accept(self, call: Call, refused: RefusedCheckpoint) -> JobEntry:
        """The mark beside its files goes first, so that whoever is sent to them may take them."""
        ref = refused.ref
        async with self._pinning.setdefault(ref.uri, asyncio.Lock()):
            await self._leadership.confirm()
            await asyncio.to_thread(self._files.accept, ref)
            try:
                return await self.change(call, partial(request_accept, uri=ref.uri))
            except (FencedError, UnavailableError):
                raise  # what was written, if anything, this controller does not know
            except TrainctlError:
                await asyncio.to_thread(self._files.refuse, ref, refused.reason)
                raise

    async def refuse(self, call: Call, uri: str, *, found: str, by: str) -> JobEntry:
        """Gives up a checkpoint that the caller has read and found damaged; its files are marked, if they can be.

        Raises:
            NotFoundError: it is none of the job's.
        """
        done = await self._done(call)
        if done is not None:
            return done
        ref = checkpoint_at(self._book.find(call.tenant, call.subject).state, uri)
        return await to_the_end(self._refuse(call, ref, uri, found, by))

    async def _refuse(self, call: Call, ref: CheckpointRef | None, uri: str, found: str, by: str) -> JobEntry:
        """The mark beside its files comes first, as a worker's does: what was found is true whatever comes of this."""
        async with self._pinning.setdefault(uri, asyncio.Lock()):
            if ref is not None:
                await asyncio.to_thread(self._files.refuse, ref, found)
            return await self.change(call, partial(request_refuse, uri=uri, found=found, by=by))

    async def mark(self, call: Call, mark: NodeMark) -> None:
        """Says of a node what an operator wants of it.

        Raises:
            NotFoundError: there is no such node.
        """

        async def act(compares: tuple[Compare, ...], operations: tuple[Operation, ...]) -> str:
            await self._agents.mark(self._leadership, call.subject, mark, compares=compares, operations=operations)
            return call.subject

        await self._once(call, act, lambda: call.subject)
        # Whatever came of it: a write whose answer was lost is known only from here.
        stored = await self._store.get(keys.node_mark(call.subject))
        self._agents.load_marks([stored] if stored is not None else [])

    async def _done(self, call: Call) -> JobEntry | None:
        """The job that this request took effect on before.

        Raises:
            JobDeletedError: it has been deleted since.
        """
        uid = await self._requests.find(call.tenant, call.request_id, call.digest)
        return self._book.made(uid) if uid is not None else None

    async def _once(
        self,
        call: Call,
        act: Callable[[tuple[Compare, ...], tuple[Operation, ...]], Awaitable[str]],
        subject: Callable[[], str],
    ) -> str:
        """What the request took effect on, now or before."""
        tenant = call.tenant or DEFAULT_TENANT
        async with self._lock:
            done = await self._requests.find(tenant, call.request_id, call.digest)
            if done is not None:
                return done
            compares, operations = await self._requests.note(
                tenant, call.request_id, call.digest, method=call.method, subject=subject()
            )
            return await act(compares, operations)
