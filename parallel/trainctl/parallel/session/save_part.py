"""Begins one rank's part of a save: where its bytes are read from while training goes on, and what writes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from trainctl.checkpoint.callbacks import nothing
from trainctl.checkpoint.engine import Attempt, PartReport
from trainctl.checkpoint.layout.key import StateKey
from trainctl.checkpoint.layout.region import Shape, volume
from trainctl.checkpoint.live.state import LocalState
from trainctl.checkpoint.monitor import COPY, MEMORY
from trainctl.checkpoint.save.saving import EntryData, Portion, live_data
from trainctl.checkpoint.snapshot.background import BackgroundPart, Given
from trainctl.checkpoint.snapshot.copier import await_training, cuda_devices
from trainctl.checkpoint.snapshot.host_pool import HostBuffer, HostPool
from trainctl.checkpoint.snapshot.snapshot import Snapshot
from trainctl.checkpoint.snapshot.stowage import Stower
from trainctl.checkpoint.stopwatch import timed
from trainctl.core.records.part import TransferKind
from trainctl.parallel.collectives.wait import Waiter
from trainctl.parallel.session.checkpoints import Manners
from trainctl.parallel.session.places import Place
from trainctl.parallel.transfers import OpenTransfer, TransferBoard

_TURNS, _TURN_S = 20, 0.05


@dataclass(frozen=True, slots=True)
class Dealt:
    """What one rank writes of a state, and the shapes of all of it."""

    portion: Portion
    shapes: Mapping[StateKey, Shape]


@dataclass(frozen=True, slots=True)
class SavePart:
    """A part on its way.

    Attributes:
        part: copies and writes it.
        shown: how far it is.
        snapshot: reads the live state until its fence is passed; None if nothing does.
        no_memory: there was no room for a copy.
    """

    part: BackgroundPart
    shown: OpenTransfer
    snapshot: Snapshot | None
    no_memory: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PartMaker:
    """Makes the parts of one rank.

    Attributes:
        place: where they go.
        pool: host memory for the copies.
        manners: how the worker saves.
        waiter: how to wait for memory that an earlier part still uses.
        changed: called when a part is over.
        transfers: where it is shown how far the parts are.
        stower: finds out what of a state goes where in its copy.
    """

    place: Place
    pool: HostPool
    manners: Manners
    waiter: Waiter
    changed: Callable[[], None]
    transfers: TransferBoard
    stower: Stower = field(default_factory=Stower)

    def make(
        self, attempt: Attempt, state: LocalState, dealt: Dealt, *, before: BackgroundPart | None, in_place: bool
    ) -> SavePart:
        """A part that is not started yet; whoever makes it closes what is shown of it.

        Args:
            attempt: which save.
            state: the live tensors.
            dealt: what of them this rank writes, and the shapes of what all ranks write.
            before: the part that is written before.
            in_place: no copy is needed: nobody changes the state until the part is written.

        Raises:
            Interrupted: as ``Waiter.check``.
        """
        shown = self.transfers.begin(TransferKind.SAVE, attempt.step, _bytes(dealt.portion))
        try:
            return self._made(attempt, state, dealt, shown, before=before, in_place=in_place)
        except BaseException:
            shown.close()
            raise

    def _made(
        self, attempt: Attempt, state: LocalState, dealt: Dealt, shown: OpenTransfer,
        *, before: BackgroundPart | None, in_place: bool,
    ) -> SavePart:  # fmt: skip
        to_place = self.place.write(attempt, dealt.shapes, wrote=shown.add)

        def write(data: EntryData, *, alive: Callable[[], None], confirm: Callable[[], None]) -> PartReport:
            shown.restart()
            return to_place(data, alive=alive, confirm=confirm)

        def background(source: Snapshot | Given, released: Callable[[], None] = nothing) -> BackgroundPart:
            return BackgroundPart(
                source,
                write,
                share=self.place.share(attempt),
                retry_after_s=self.place.retry_after_s,
                before=before,
                beside_training=not in_place,
                changed=self.changed,
                released=released,
            )

        assigned = dealt.portion
        if in_place:
            await_training(state)  # the part's own thread reads it
            return SavePart(background(Given(live_data(state, assigned))), shown, None)
        try:
            with timed(MEMORY):
                stowage = self.stower.of(state, assigned)
                buffer = self._buffer(stowage.size_bytes, pinned=bool(cuda_devices(state)))
        except (MemoryError, RuntimeError) as error:  # torch says it with a RuntimeError
            nothing_there = Given({}, f"no host memory for a copy of the state: {error}", "no_memory")
            return SavePart(background(nothing_there), shown, None, True)
        if buffer is None:
            occupied = Given({}, "the storage has not let go of the copies of earlier saves", "no_answer")
            return SavePart(background(occupied), shown, None)
        pool = self.pool
        try:
            with timed(COPY):
                snapshot = Snapshot(state, stowage, buffer)
                if self.manners.at_once:
                    snapshot.copy(self.waiter.check)
                    snapshot.fence(0.0)
        except BaseException:  # a newer generation calls
            pool.give_back(buffer)
            raise
        if snapshot.settled(0.0):
            settled = Given(snapshot.data, snapshot.reason, snapshot.cause)
            return SavePart(background(settled, lambda: pool.give_back(buffer)), shown, None)
        return SavePart(background(snapshot, lambda: pool.give_back(buffer)), shown, snapshot)

    def _buffer(self, size_bytes: int, *, pinned: bool) -> HostBuffer | None:
        """Waits a moment for one that a part of an earlier generation has not let go of yet."""
        for _ in range(_TURNS):
            if (buffer := self.pool.take(size_bytes, _TURN_S, pinned=pinned)) is not None:
                return buffer
            self.waiter.check()
        return None


def _bytes(assigned: Portion) -> int:
    return sum(volume(region) * key.item_bytes for key, regions in assigned.items() for region in regions)
