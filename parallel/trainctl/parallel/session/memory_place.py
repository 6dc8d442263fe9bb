"""The memory of the nodes as a place to save to: each part lies on its writer's node and on one other.

A snapshot is complete when every node has the root manifest; each node then lets go of the one before. So there is
always one that every rank completed. What goes wrong ends the making of snapshots for the generation, not the training.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from trainctl.checkpoint.engine import Attempt, CheckpointWriter, PartReport
from trainctl.checkpoint.exchange.lanes import run_lanes
from trainctl.checkpoint.layout.key import StateKey
from trainctl.checkpoint.layout.region import Shape
from trainctl.checkpoint.memory.node_memory import NodeMemory, NoRoomError, folder_of, held_of
from trainctl.checkpoint.save.saving import EntryData
from trainctl.checkpoint.snapshot.background import SharePart, WritePart
from trainctl.core.errors import TrainctlError
from trainctl.core.records.generation import CheckpointRef
from trainctl.core.records.part import NO_ROOM
from trainctl.core.records.snapshot import SnapshotHeld, SnapshotRef, SnapshotsMade
from trainctl.core.records.spec import DISK, MEMORY
from trainctl.core.system.faults import FaultPlan
from trainctl.core.units import format_bytes
from trainctl.parallel.collectives.gather import gather_json
from trainctl.parallel.collectives.port import Group, PendingGroup
from trainctl.parallel.collectives.wait import Waiter
from trainctl.parallel.plan.buddies import buddies, together
from trainctl.parallel.recovery.file_exchange import FileExchange
from trainctl.parallel.session.sealing import Collected, SealThread

_LOOK_S = 0.02
_ROOMS: Mapping[str, tuple[str, str]] = {
    MEMORY: ("memory", "--memory-dir"),
    DISK: ("folder on a disk", "--snapshot-dir"),
}
_SEPARATOR = "/"
"""Between a node and its failure domain: in no name of either. A worker of an older version says its node alone."""


class MemoryPlace:
    """Implements ``Place``.

    Args:
        memory: of this rank's node; None: the node has none to give.
        node: where this rank runs.
        wanted_in: ``memory`` or ``disk``, as the job has it; for people.
        failure_domain: what that fails together with; empty: with no other node.
        group: the ranks of the generation.
        waiter: how to wait for them.
        connect: begins to build a second group of the same ranks, for what goes on beside the training.
        faults: armed fault points.
        notice: tells people why no snapshots are made any more.
        told: hears, on a rank that seals, of every snapshot that all nodes completed, and of the one that ends it;
            where no node has memory, on rank 0.
        generation: ``g``.

    Attributes:
        over: no snapshots are made any more; all ranks say the same at the same boundary.
    """

    retry_after_s: Sequence[float] = ()

    def __init__(
        self,
        memory: NodeMemory | None,
        *,
        node: str,
        wanted_in: str = MEMORY,
        failure_domain: str = "",
        group: Group,
        waiter: Waiter,
        connect: Callable[[], PendingGroup],
        faults: FaultPlan,
        notice: Callable[[str], None],
        told: Callable[[SnapshotsMade], None],
        generation: int,
    ) -> None:
        self.over = False
        self.seals = False
        self._memory = memory
        self._node = node
        self._domain = failure_domain
        self._room, self._option = _ROOMS.get(wanted_in, _ROOMS[MEMORY])
        self._group = group
        self._waiter = waiter
        self._connect = connect
        self._faults = faults
        self._notice = notice
        self._told = told
        self._made = SnapshotsMade(generation=generation, failure_domain=failure_domain)
        self._here: SnapshotHeld | None = None
        self._began_s = self._stall_s = 0.0
        self._why, self._cause = "", ""
        self._nodes: list[str] = []
        self._buddies: Sequence[int | None] = ()
        self._pending: PendingGroup | None = None
        self._exchange: FileExchange | None = None
        # Whatever an earlier generation left goes when this one has completed its first.
        self._before = memory.attempts() if memory is not None else ()

    def prepare(self) -> None:
        """The first time, all ranks hear who is on which node.

        Raises:
            Interrupted, CollectiveError: as ``Waiter.wait``.
        """
        if self._nodes:
            return
        own = _SEPARATOR.join((self._node, self._domain)).rstrip(_SEPARATOR) if self._memory is not None else None
        said = gather_json(self._group, own, waiter=self._waiter, what="learning who is on which node")
        found = [str(one or "").partition(_SEPARATOR) for one in said]
        self._nodes = [node for node, _, _ in found]
        domains = {node: domain for node, _, domain in found}
        self._buddies = buddies(self._nodes, domains)
        if self._group.rank == 0 and (alike := together(self._nodes, self._buddies, domains)):
            self._notice(_in_one_domain(alike, self._nodes, domains))
        self.seals = self._nodes.index(self._node) == self._group.rank if own is not None else False

    def write(self, attempt: Attempt, shapes: Mapping[StateKey, Shape], *, wrote: Callable[[int], None]) -> WritePart:
        """To the memory of this node, if it has room for the part and for that of whom it is the buddy of."""

        def write(data: EntryData, *, alive: Callable[[], None], confirm: Callable[[], None]) -> PartReport:
            memory = self._room_for(sum(entry.size_bytes for entry in data) * (1 + len(self._wards)))
            writer = CheckpointWriter(memory.uri, faults=self._faults)
            return writer.write_part(
                attempt, writer=self._group.rank, data=data, shapes=shapes, alive=alive, confirm=confirm, wrote=wrote
            )

        return write

    def share(self, attempt: Attempt) -> SharePart:
        """Sends the part to the buddy, and takes those of whom it is the buddy of; a part that failed is no files."""

        def share(part: PartReport | None, *, alive: Callable[[], None], check: Callable[[], None]) -> None:
            if not any(buddy is not None for buddy in self._buddies) or self._memory is None:
                return
            here = {"step": attempt.step, "rank": self._group.rank}
            self._faults.reach("snapshot.share", **here)
            folder = self._memory.where(_ref(attempt))
            paths = [file.path for file in (*part.files, part.manifest)] if part is not None else []
            exchange = self._connected(check)

            def sending(message: int) -> None:
                self._faults.reach("snapshot.send", message=message, **here)

            def receiving(message: int) -> None:
                self._faults.reach("snapshot.receive", message=message, **here)

            lanes = [exchange.receive(folder, ward, reach=receiving) for ward in self._wards]
            buddy = self._buddies[self._group.rank]
            if buddy is not None:
                lanes.append(exchange.send(folder, paths, buddy, reach=sending))
            run_lanes(lanes, alive=alive, check=check)

        return share

    def seal(self, save: Collected, *, before: SealThread | None, changed: Callable[[], None]) -> SealThread:
        """Writes the root manifest to this node's memory if all parts are there."""
        here = [part for part in save.written if self._node in self._keepers(part.writer)]
        self._here = held_of(_ref(save.attempt), len(save.parts), here)
        self._began_s, self._stall_s = save.began_s, save.stall_s
        self._why, self._cause = "", save.cause

        def seal(newest: CheckpointRef | None) -> CheckpointRef | None:
            if save.errors or self._memory is None:
                failed("; ".join(save.errors))
                return None
            writer = CheckpointWriter(self._memory.uri, faults=self._faults)
            return writer.seal(save.attempt, state=save.state, parts=save.written, parent=None, here=here)

        def failed(error: str) -> None:
            self._failed(save.attempt, error)

        return SealThread(seal, failed=failed, parent=None, before=before, changed=changed)

    def settle(self, attempt: Attempt, sealed: Sequence[CheckpointRef | None]) -> None:
        """Where all nodes completed it, it takes the place of those before; else it goes, and no others are made."""
        sealers = {node: rank for rank, node in reversed(list(enumerate(self._nodes)))}
        complete = all(self._nodes) and all(sealed[rank] is not None for rank in sealers.values())
        self.over = not complete
        if not any(self._nodes) and self._group.rank == 0:
            self._cause = NO_ROOM
            self._failed(
                attempt, f"no node of the job has {self._room} for snapshots; see {self._option} of their agents"
            )
            self._tell_end(attempt)
        if self._memory is None or not self.seals:
            return
        own = (folder_of(_ref(attempt)),)
        self._memory.remove(self._before if complete else own)
        self._before = own if complete else self._before
        if complete:
            self._made = replace(
                self._made,
                made=self._made.made + 1,
                newest=self._here,
                seconds=time.monotonic() - self._began_s,
                stall_s=self._stall_s,
            )
            self._told(self._made)
        else:
            self._tell_end(attempt)

    def leave(self) -> None:
        """The generation is over."""
        if self._pending is not None:
            self._pending.abandon()

    def clear(self) -> None:
        """The last checkpoint has everything: the node gets its memory back."""
        if self._memory is not None and self.seals:
            self._memory.remove(self._memory.attempts())

    def _failed(self, attempt: Attempt, error: str) -> None:
        self._why = error
        self._notice(f"no more snapshots in this generation, since that of step {attempt.step} failed: {error}")

    def _tell_end(self, attempt: Attempt) -> None:
        why = f"that of step {attempt.step} failed: {self._why or 'another node did not complete it'}"
        self._made = replace(self._made, error=why, cause=self._cause if self._why else "")
        self._told(self._made)

    @property
    def _wards(self) -> list[int]:
        """Whose buddy this rank is."""
        return [rank for rank, buddy in enumerate(self._buddies) if buddy == self._group.rank]

    def _keepers(self, rank: int) -> set[str]:
        """Nodes that have a rank's part: its own, and its buddy's."""
        buddy = self._buddies[rank]
        return {self._nodes[rank]} | ({self._nodes[buddy]} if buddy is not None else set())

    def _room_for(self, size_bytes: int) -> NodeMemory:
        if self._memory is None:
            raise NoRoomError(
                f"node {self._node} has no {self._room} for snapshots", hint=f"see its agent's {self._option}"
            )
        with contextlib.suppress(OSError):
            self._memory.make()
        room_bytes = self._memory.room_bytes()
        if room_bytes < size_bytes:
            raise NoRoomError(
                f"{self._memory.uri} on node {self._node} has room for {format_bytes(room_bytes)}, expected "
                f"{format_bytes(size_bytes)} for a rank's part of a snapshot and its copy",
                hint="give its file system more room, or take spec.checkpoint.snapshots out of the job file",
            )
        return self._memory

    def _connected(self, check: Callable[[], None]) -> FileExchange:
        """Builds the second group when it is needed first; on the thread of the part, one part at a time."""
        if self._exchange is None:
            self._pending = pending = self._connect()
            while not pending.done_within(_LOOK_S):
                check()
            if problem := pending.error():
                raise TrainctlError(f"connecting the ranks for copies of snapshots failed: {problem}")
            self._exchange = FileExchange(pending.group())
        return self._exchange


def _in_one_domain(ranks: Sequence[int], nodes: Sequence[str], domains: Mapping[str, str]) -> str:
    found = sorted({domains[nodes[rank]] for rank in ranks})
    which = f"failure domain {', '.join(found[:3])}{' and more' if len(found) > 3 else ''}"
    of = f"all {len(nodes)}" if len(ranks) == len(nodes) else f"{len(ranks)} of {len(nodes)}"
    return (
        f"the snapshots of {of} ranks have their copy on another node of the same {which}, and are lost with it: "
        "no other domain has nodes of the job for them"
    )


def _ref(attempt: Attempt) -> SnapshotRef:
    return SnapshotRef(lineage=attempt.lineage, step=attempt.step, attempt=attempt.attempt)
