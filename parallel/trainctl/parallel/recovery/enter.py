"""Carries out a generation record. It may be interrupted anywhere, and a later record carried out instead.

Holders change nothing but to apply the open step; a joiner counts as empty until everybody agreed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from trainctl.checkpoint.layout.key import StateVersion
from trainctl.checkpoint.load.load_watch import LoadWatch
from trainctl.checkpoint.manifest.values import decode_value, encode_value
from trainctl.checkpoint.memory.node_memory import NodeMemory, folder_of
from trainctl.checkpoint.monitor import DIGEST, bottleneck
from trainctl.core.codec import from_wire, to_wire
from trainctl.core.errors import InternalError, PlanError, TrainctlError
from trainctl.core.records.generation import CheckpointRef, GenerationRecord, Member, Rung
from trainctl.core.records.part import SNAPSHOT, PartTimes, TransferKind
from trainctl.core.records.snapshot import SnapshotRef
from trainctl.core.records.step import Outcome, Phase
from trainctl.core.records.worker import LoadReport
from trainctl.parallel.collectives.gather import gather_json
from trainctl.parallel.collectives.port import Collectives, Group, Rendezvous
from trainctl.parallel.collectives.wait import Waiter
from trainctl.parallel.recovery.copying import StateCopy
from trainctl.parallel.recovery.from_memory import MemoryLoad, SnapshotLostError
from trainctl.parallel.recovery.from_storage import StateLostError, StorageLoad
from trainctl.parallel.recovery.membership import Membership
from trainctl.parallel.recovery.transfer import joiners, plan_copies
from trainctl.parallel.replica.replica import EMPTY, Replica
from trainctl.parallel.transfers import TransferBoard


@dataclass(frozen=True, slots=True)
class _Obtained:
    """How this rank came by the state.

    Attributes:
        applied: the open step was applied.
        received: bytes by source.
        figures: what came with them.
        load: what a load from storage, or from the memory of the nodes, took.
        damaged: copies of parts of a snapshot that were not as they were saved.
    """

    applied: bool = False
    received: dict[str, int] = field(default_factory=dict[str, int])
    figures: Sequence[Any] = ()
    load: PartTimes | None = None
    damaged: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What carrying out a record needs.

    Attributes:
        record: the decision.
        rank: own rank in it.
        replica: own state.
        collectives: makes the group.
        waiter: for all waiting.
        show: publishes the phase.
        reach: fault points.
        evaluated_step: newest step that this worker knows to be evaluated.
        apply: commits the open step by its outcome, as every step is committed.
        recent: figures for those who hold nothing.
        prepare: called when the group is there, before the state is obtained.
        transfers: where it is shown how far a load is.
        memory: where this node keeps snapshots; None: nowhere.
    """

    record: GenerationRecord
    rank: int
    replica: Replica
    collectives: Collectives
    waiter: Waiter
    show: Callable[[Phase], None]
    reach: Callable[[str], None]
    evaluated_step: int
    apply: Callable[[Outcome], None]
    recent: Callable[[], Sequence[Any]]
    prepare: Callable[[Rendezvous], None]
    transfers: TransferBoard
    memory: NodeMemory | None = None

    def carry_out(self) -> Membership:
        """Build, obtain the state, agree.

        Raises:
            Interrupted, CollectiveError: as ``Waiter.wait``; the group is abandoned.
            StateLostError: the initial state is wanted and nobody has it any more.
            DamagedCheckpointError: the checkpoint is not what was saved; it is marked so that nobody takes it for the
                newest any more. Which one is loaded instead, by all ranks, is for the next record to say.
            CheckpointError: the checkpoint cannot be loaded.
            InternalError: the ranks do not agree.
        """
        began_s = time.monotonic()
        self.show(Phase.REBUILD)
        rendezvous = self._rendezvous()
        group = self._build(rendezvous)
        shown = self.transfers.begin(TransferKind.LOAD, self._source.step) if self._source is not None else None
        try:
            self.prepare(rendezvous)
            built_s = time.monotonic()
            self.show(Phase.RESTORE)
            obtained = self._obtain(group, LoadWatch(shown.at) if shown is not None else None)
            evaluated, parts = self._agree(group, obtained.load)
        except BaseException:
            group.abandon()
            raise
        finally:
            if shown is not None:
                shown.close()
        restore_s = time.monotonic() - built_s
        return Membership(
            record=self.record,
            group=group,
            evaluated=evaluated,
            rebuild_s=built_s - began_s,
            restore_s=restore_s,
            received_bytes=obtained.received,
            applied_open_step=obtained.applied,
            figures=tuple(obtained.figures),
            load=self._report(parts, restore_s, obtained.damaged),
        )

    @property
    def _source(self) -> CheckpointRef | SnapshotRef | None:
        """What all ranks load; None where the state comes from those who hold it."""
        if self.record.rung is Rung.SNAPSHOT:
            return self.record.snapshot
        return self.record.checkpoint if self.record.rung in (Rung.CHECKPOINT, Rung.START) else None

    def _report(self, parts: Sequence[PartTimes], seconds: float, damaged: Sequence[str]) -> LoadReport | None:
        """Rank 0 tells what the load took all of them."""
        source = self._source
        if source is None or self.rank != 0:
            return None
        uri = source.uri if isinstance(source, CheckpointRef) else f"{SNAPSHOT}://{folder_of(source)}"
        said = bottleneck(parts, uri=uri)
        return LoadReport(
            uri=uri, step=source.step, seconds=seconds, parts=tuple(parts), bottleneck=said, damaged=tuple(damaged)
        )

    def _rendezvous(self) -> Rendezvous:
        record = self.record
        return Rendezvous(
            store_address=record.store_address,
            prefix=record.store_prefix,
            rank=self.rank,
            size=record.world_size,
            address=self._own().address,
            timeout_s=self.waiter.timeout_s,
        )

    def _own(self) -> Member:
        own = self.record.member(self.rank)
        if own is None:
            raise InternalError(f"generation {self.record.generation}: rank {self.rank} is not told of itself")
        return own

    def _build(self, rendezvous: Rendezvous) -> Group:
        pending = self.collectives.connect(rendezvous)
        try:
            self.reach("rebuild.in")
            self.waiter.wait(pending, f"building the group of {rendezvous.size} ranks")
        except BaseException:
            pending.abandon()
            raise
        return pending.group()

    def _obtain(self, group: Group, watch: LoadWatch | None) -> _Obtained:
        source = self._source
        if source is not None and watch is not None:
            if isinstance(source, SnapshotRef):
                obtained = self._load_snapshot(source, group, watch)
            else:
                load = StorageLoad(
                    record=self.record, replica=self.replica, group=group, waiter=self.waiter, watch=watch
                )
                obtained = _Obtained(received=load.of(source))
            return replace(obtained, load=watch.part(self.rank))
        if self.record.rung is Rung.START:
            return _Obtained(received=self._start(group))
        if not self.record.holders:
            raise InternalError(f"generation {self.record.generation}: rung {self.record.rung} without a holder")
        applied = self.rank in self.record.holders and self._settle_open_step()
        if len(self.record.holders) == self.record.world_size:
            return _Obtained(applied)
        return _Obtained(applied, *self._copy(group))

    def _start(self, group: Group) -> dict[str, int]:
        """The initial state; whoever has written over it gets it from those who have not."""
        if self.record.holders and self.rank not in self.record.holders:
            return self._copy(group)[0]
        if not self.replica.pristine:
            raise StateLostError(
                f"generation {self.record.generation} starts from the initial state, but this worker had trained, or "
                "had received a part of the state of workers that are lost; a new one takes its place"
            )
        self.replica.give_up_step()
        self.replica.checkpoint = None
        self.replica.stand_at(lineage=self.record.lineage, step=0, cursor=0)
        if self.record.holders:
            self._copy(group)
        return {}

    def _load_snapshot(self, snapshot: SnapshotRef, group: Group, watch: LoadWatch) -> _Obtained:
        if self.memory is None:
            raise SnapshotLostError(f"node {self._own().node} has no memory for the snapshot of step {snapshot.step}")
        self.replica.make_empty()
        load = MemoryLoad(
            snapshot=snapshot,
            memory=self.memory,
            node=self._own().node,
            group=group,
            waiter=self.waiter,
            watch=watch,
        )
        objects, received = load.into(self.replica.state(StateVersion(self.record.lineage, self.record.target_step)))
        cursor = self.replica.import_objects(objects)
        self.replica.stand_at(lineage=self.record.lineage, step=self.record.target_step, cursor=cursor)
        self.replica.checkpoint = self.record.checkpoint
        return _Obtained(received=received, damaged=load.damaged)

    def _settle_open_step(self) -> bool:
        """Finishes the target step from the retained gradients, or discards what is open; whether it applied one."""
        replica, outcome = self.replica, self.record.outcome
        if replica.applied_step == self.record.target_step and replica.lineage == self.record.lineage:
            replica.give_up_step()
            return False
        if outcome is None or outcome.step != self.record.target_step:
            raise InternalError(
                f"generation {self.record.generation}: rank {self.rank} is to hold step {self.record.target_step}, "
                f"but holds step {replica.applied_step} and there is no outcome to apply"
            )
        self.apply(outcome)
        self.show(Phase.RESTORE)
        return True

    def _copy(self, group: Group) -> tuple[dict[str, int], Sequence[Any]]:
        """Objects first, in one gather, since everybody needs them to be small; then tensors, rank to rank."""
        holder = self.rank in self.record.holders
        shared = self._shared() if holder else None
        everyone = gather_json(group, shared, waiter=self.waiter, what="sharing the objects")
        state = self.replica.state(StateVersion(self.record.lineage, self.record.target_step))
        layout = self.replica.holding.layout(group, state, waiter=self.waiter)
        plan = plan_copies(self.record, layout)
        copy = StateCopy(group, plan, source=state, target=state, waiter=self.waiter, reach=self.reach)
        if holder:
            return copy.run(), ()
        shown = self.transfers.begin(TransferKind.COPY, self.record.target_step, copy.wanted_bytes)
        try:
            received = copy.run(writing=self.replica.make_empty, got=shown.add)
        finally:
            shown.close()
        first = everyone[min(self.record.holders)]
        self._adopt(first)
        return received, first["figures"]

    def _shared(self) -> dict[str, Any]:
        checkpoint = self.replica.checkpoint
        return {
            "objects": _sendable(self.replica.export_objects()),
            "checkpoint": to_wire(checkpoint) if checkpoint else None,
            "figures": self.recent() if self.rank == min(self.record.holders) else (),
        }

    def _adopt(self, shared: Mapping[str, Any]) -> None:
        self.replica.make_empty()
        cursor = self.replica.import_objects(decode_value(shared["objects"]))
        found = shared["checkpoint"]
        self.replica.checkpoint = from_wire(CheckpointRef, found) if found else None
        self.replica.stand_at(lineage=self.record.lineage, step=self.record.target_step, cursor=cursor)

    def _disagreement(self, rank: int, facts: Mapping[str, tuple[Any, Any]]) -> TrainctlError:
        record = self.record
        where = f"generation {record.generation}, step {record.target_step}"
        member = record.member(rank)
        who = f"rank {rank} ({member.node})" if member is not None else f"rank {rank}"
        if record.rung is Rung.START and facts.keys() <= {"state", "schema"}:
            what = "of other names, shapes or types" if "schema" in facts else "of other values"
            return PlanError(
                f"{where}: {who} built a model or optimizer {what} than rank 0 did; all ranks must build the same",
                hint="draw initial weights from torch's global generator, which is seeded alike, and let nothing "
                "depend on the rank, the host, the time or the order of a set",
            )
        shown = ", ".join(f"{name} {found} instead of {expected}" for name, (found, expected) in facts.items())
        return InternalError(f"{where}: {who} does not hold what rank 0 holds: {shown}")

    def _objects_to_compare(self) -> Any:
        """Rank 0's registered objects where everybody starts from what it built itself, and nothing was handed over."""
        starts = self.record.rung is Rung.START and self.rank == 0 and self.replica.holding.alike
        return _sendable(self.replica.export_objects()["registered"]) if starts else None

    def _agree(self, group: Group, load: PartTimes | None) -> tuple[bool, Sequence[PartTimes]]:
        """Sees that all ranks hold the same.

        Returns:
            Whether any of them knows the target step to be evaluated, and what the load took each.
        """
        replica = self.replica
        began_s = time.monotonic()
        digest = replica.digest()
        if load is not None:
            took_s = round(time.monotonic() - began_s, 6)
            load = replace(load, seconds={**load.seconds, DIGEST: took_s})
        own: dict[str, Any] = {
            "generation": self.record.generation,
            "lineage": replica.lineage,
            "step": replica.applied_step,
            "cursor": replica.cursor,
            "state": digest,
            "schema": replica.schema_digest,
        }
        if self.rank in joiners(self.record):
            replica.applied_step = EMPTY  # not to be copied from before everybody confirmed it
        told = to_wire(load) if load is not None else None
        more = {"evaluated": self.evaluated_step, "objects": self._objects_to_compare(), "load": told}
        said = gather_json(group, {**own, **more}, waiter=self.waiter, what="agreeing")
        for rank, other in enumerate(said):
            wrong = [name for name in own if other[name] != said[0][name]]
            if wrong:
                raise self._disagreement(rank, {name: (other[name], said[0][name]) for name in wrong})
        if said[0]["objects"] is not None:
            replica.adopt_registered(decode_value(said[0]["objects"]))
        replica.applied_step = own["step"]
        parts = [from_wire(PartTimes, other["load"]) for other in said if other["load"] is not None]
        return any(other["evaluated"] == self.record.target_step for other in said), parts


def _sendable(objects: Mapping[str, Any]) -> Any:
    """As JSON, which would make texts of all keys; numbers stay, as workers of older versions expect them."""
    return encode_value(objects, keys_only=True)
