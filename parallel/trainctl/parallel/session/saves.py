"""The saves of one generation that are on their way to one place: begun at a step boundary, written beside the steps.

Every rank copies and writes its part in the background. How far it is travels with the vote, so that all ranks know at
the same boundary that a save's parts are all there; then who seals at that place does so, and some votes later
everybody learns how that went. Nothing here waits for the place, except ``finish``, and ``begin`` where too much is on
its way already.
"""

from __future__ import annotations

import copy
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

from trainctl.checkpoint.engine import Attempt, attempt_id
from trainctl.checkpoint.layout.key import StateVersion
from trainctl.checkpoint.layout.layout import rank_holder
from trainctl.checkpoint.live.state import LocalState
from trainctl.checkpoint.monitor import FENCE, MEMORY, PLAN, STAGES, STALL
from trainctl.checkpoint.save.dealing import Dealer
from trainctl.checkpoint.snapshot.background import PartOutcome
from trainctl.checkpoint.snapshot.host_pool import HostPool
from trainctl.checkpoint.stopwatch import Stopwatch, timed
from trainctl.core.codec import from_wire, to_wire
from trainctl.core.records.generation import CheckpointRef, GenerationRecord
from trainctl.parallel.collectives.gather import gather_json
from trainctl.parallel.collectives.port import Group
from trainctl.parallel.collectives.wait import Waiter
from trainctl.parallel.plan.vote import Saved, least
from trainctl.parallel.replica.replica import Replica
from trainctl.parallel.session.checkpoints import IN_FLIGHT, Manners
from trainctl.parallel.session.places import Place
from trainctl.parallel.session.save_part import Dealt, PartMaker, SavePart
from trainctl.parallel.session.sealing import Collected, SealThread
from trainctl.parallel.transfers import TransferBoard

FENCE_S = 5.0
"""How long the next change of the state waits for a copy of it."""
SILENCE_S = 120.0
"""Storage that takes nothing for so long is given up; it takes that long to sync a large file to a slow disk."""
_LOOK_EVERY_S = 0.1


@dataclass(slots=True)
class _Save:
    attempt: Attempt
    state: LocalState
    own: SavePart
    began_s: float
    stall_s: float
    watch: Stopwatch
    in_place: bool
    seal: SealThread | None = None


@dataclass(frozen=True, slots=True)
class _Said:
    """What one rank tells the others of its part."""

    outcome: PartOutcome
    stall_s: float
    pool_bytes: int = 0


class Saves:
    """See above.

    Args:
        place: where to.
        pool: host memory for the copies.
        manners: how this worker saves.
        replica: what is saved.
        record: of the generation.
        group: its ranks.
        waiter: how to wait for them.
        background: whether training goes on meanwhile.
        saved_step: the newest step that is known to be complete there; -1 if none is.
        notice: tells people that this worker saves in another way from now on.
        transfers: where it is shown how far the saves are.

    Attributes:
        saved_step: the newest step of which a save was begun, or is known to be complete.
    """

    def __init__(
        self,
        place: Place,
        pool: HostPool,
        manners: Manners,
        replica: Replica,
        record: GenerationRecord,
        group: Group,
        *,
        waiter: Waiter,
        background: bool,
        saved_step: int,
        notice: Callable[[str], None],
        transfers: TransferBoard,
    ) -> None:
        self._place = place
        self._manners = manners
        self._background = background
        self._replica = replica
        self._record = record
        self._group = group
        self._waiter = waiter
        self._notice = notice
        self._moved = threading.Event()
        self._pool = pool
        self._dealer = Dealer(rank_holder(group.rank))
        self._maker = PartMaker(
            place=place, pool=pool, manners=manners, waiter=waiter, changed=self._moved.set, transfers=transfers
        )
        self._saves: deque[_Save] = deque()
        self._last: _Save | None = None
        self._collected = self._published = 0
        self.saved_step = saved_step

    @property
    def ready(self) -> bool:
        """Whether nothing is on its way, and the place takes more; all ranks say the same at the same boundary."""
        return not self._saves and not self._place.over

    @property
    def sealing(self) -> bool:
        """Whether something is being sealed here, which ends well or not whatever becomes of this generation."""
        return any(save.seal is not None and not self._sealed(save) for save in self._saves)

    @property
    def in_place(self) -> bool:
        """Whether this rank cannot save but in place. It is the vote that makes all ranks do so."""
        return self._manners.in_place

    @property
    def saved(self) -> Saved:
        """How far this rank is, for the vote."""
        now_s = time.monotonic()
        for save in self._saves:
            if save.own.part.still_for_s(now_s) > SILENCE_S:
                silent = f"nothing was written for {SILENCE_S:g} s: the storage does not answer"
                save.own.part.give_up(silent, "no_answer")
        written = [save.own.part.outcome is not None for save in self._saves]
        sealed = [not self._place.seals or self._sealed(save) for save in self._saves]
        return Saved(self._published + _leading(written), self._published + _leading(sealed))

    def begin(self, *, in_place: bool) -> None:
        """Begins to save the state as it is; all ranks call it at the same boundary.

        Args:
            in_place: no copy is made; on return everything is complete, or has failed.

        Raises:
            Interrupted, CollectiveError: as ``Waiter.wait``.
        """
        began_s = time.monotonic()
        watch = Stopwatch()
        with watch.measuring():
            save = self._begun(began_s, watch, in_place=in_place)
        self._last = save
        self._saves.append(save)
        self.saved_step = save.attempt.step
        if save.in_place:
            self.finish()

    def _begun(self, began_s: float, watch: Stopwatch, *, in_place: bool) -> _Save:
        with timed(MEMORY):
            while len(self._saves) >= IN_FLIGHT:
                self._advance_together()
        with timed(PLAN):
            self._place.prepare()
        in_place = in_place or not self._background
        replica = self._replica
        state = replica.state(StateVersion(replica.lineage, replica.applied_step))
        state = replace(state, objects=copy.deepcopy(state.objects))
        attempt = Attempt(
            job=self._record.job_uid,
            step=replica.applied_step,
            lineage=replica.lineage,
            epoch=self._record.epoch,
            attempt=attempt_id(self._record.store_prefix, replica.applied_step, lineage=replica.lineage),
        )
        before = self._last.own.part if self._last is not None else None
        with timed(PLAN):
            dealt = self._dealt(state)
        own = self._maker.make(attempt, state, dealt, before=before, in_place=in_place)
        if own.no_memory and not self.in_place:
            self._manners.in_place = True
            self._notice("there is no memory for a copy of the state: from now on training waits while it is saved")
        own.part.start()
        return _Save(attempt, state, own, began_s, time.monotonic() - began_s, watch, in_place)

    def pass_fence(self) -> None:
        """Called before the state changes: on return nothing is read from it any more."""
        for save in self._saves:
            self._pass_fence(save, FENCE_S)

    def advance(self, agreed: Saved) -> None:
        """Takes the saves as far as all ranks are.

        Raises:
            Interrupted, CollectiveError: as ``Waiter.wait``.
        """
        while self._collected < agreed.written:
            self._collect(self._saves[self._collected - self._published])
            self._collected += 1
        while self._published < min(agreed.sealed, self._collected):
            self._publish(self._saves[0])
            self._saves.popleft()
            self._published += 1

    def finish(self) -> None:
        """Waits until everything that was begun is complete, or has failed; training stands still.

        Raises:
            Interrupted, CollectiveError: as ``Waiter.wait``.
        """
        while self._saves:
            self._advance_together()

    def abandon(self) -> None:
        """The generation is over: nobody reads the state any more. What had all its parts is still sealed."""
        self._place.leave()
        for save in self._saves:
            if save.own.snapshot is not None:
                save.own.snapshot.fence(0.0)
            if save.seal is None:
                save.own.part.give_up("its generation ended")
            save.own.shown.close()
        self._saves.clear()

    def clear(self) -> None:
        """The run is over, and nobody needs what was saved here any more."""
        self.abandon()
        self._place.clear()

    def _sealed(self, save: _Save) -> bool:
        return save.seal is not None and save.seal.over(SILENCE_S)

    def _dealt(self, state: LocalState) -> Dealt:
        """Dealt over who holds what."""
        layout = self._replica.holding.layout(self._group, state, waiter=self._waiter)
        return Dealt(self._dealer.portion(layout), layout.shapes)

    def _pass_fence(self, save: _Save, within_s: float) -> None:
        snapshot = save.own.snapshot
        if snapshot is None or snapshot.settled(0.0):
            return
        began_s = time.monotonic()
        if not snapshot.fence(within_s, self._waiter.check):
            self._manners.at_once = True
            self._notice(
                f"the copy for the checkpoint of step {save.attempt.step} is dropped: {snapshot.reason}; "
                "from now on training waits while the copy is made"
            )
        waited_s = time.monotonic() - began_s
        save.stall_s += waited_s
        save.watch.add(FENCE, waited_s)

    def _advance_together(self) -> None:
        """One turn of waiting: nobody trains, so there is no vote to say how far everybody is."""
        began_s = time.monotonic()
        self._moved.clear()
        for save in self._saves:
            if save.own.snapshot is not None and save.own.snapshot.over:
                self._pass_fence(save, 0.0)
        said = gather_json(self._group, list(self.saved.counts), waiter=self._waiter, what="saving a checkpoint")
        before = self._collected, self._published
        self.advance(least([Saved(*counts) for counts in said]))
        if self._saves and before == (self._collected, self._published):
            self._moved.wait(_LOOK_EVERY_S)
            self._waiter.check()
        for save in self._saves:
            save.stall_s += time.monotonic() - began_s

    def _collect(self, save: _Save) -> None:
        """All parts are there, or failed: everybody hears of everybody's, and who seals there does so."""
        outcome = save.own.part.outcome
        assert outcome is not None
        if outcome.part is not None:
            waited, written = {**save.watch.seconds, STALL: save.stall_s}, outcome.stages
            seconds = {stage: round(waited.get(stage, 0.0) + written.get(stage, 0.0), 6) for stage in STAGES}
            outcome = replace(outcome, part=replace(outcome.part, seconds=seconds))
        own = _Said(outcome, save.stall_s, self._pool.held_bytes)
        told = gather_json(self._group, to_wire(own), waiter=self._waiter, what="collecting the checkpoint's parts")
        said = [from_wire(_Said, one) for one in told]
        if not self._place.seals:
            return
        before = [other.seal for other in self._saves if other.seal is not None][-1:]
        collected = Collected(
            attempt=save.attempt,
            state=save.state,
            parts=[one.outcome for one in said],
            began_s=save.began_s,
            stall_s=max(one.stall_s for one in said),
            pool_bytes=max(one.pool_bytes for one in said),
        )
        save.seal = self._place.seal(collected, before=before[0] if before else None, changed=self._moved.set)

    def _publish(self, save: _Save) -> None:
        """The save was sealed, or has failed: everybody hears of it."""
        save.own.shown.close()
        own = to_wire(save.seal.ref) if save.seal is not None and save.seal.ref is not None else None
        said = gather_json(self._group, own, waiter=self._waiter, what="learning how a checkpoint went")
        self._place.settle(save.attempt, [from_wire(CheckpointRef, one) if one is not None else None for one in said])


def _leading(done: list[bool]) -> int:
    """How many are done before the first that is not."""
    return next((index for index, is_done in enumerate(done) if not is_done), len(done))
