"""The generation record: the one decision that all members of an island carry out, fixed before any of them moves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from trainctl.core.records.snapshot import SnapshotRef
from trainctl.core.records.step import Outcome


class Rung(StrEnum):
    """How the members come to hold the state at the target step (design section 6)."""

    START = "start"
    PEER = "peer"
    SNAPSHOT = "snapshot"
    CHECKPOINT = "checkpoint"
    SHRINK = "shrink"
    GROW = "grow"
    RESTART = "restart"
    """Of a command, which keeps its state itself: it is started again on all ranks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One rank of an island.

    Attributes:
        global_rank: position in the rank order, 0-based.
        slot: worker slot of the job; stays with the job while workers in it come and go.
        incarnation: which worker life fills the slot.
        node: where it runs.
        agent_incarnation: which agent life is its parent.
        address: host that other members reach it at.
    """

    global_rank: int
    slot: int
    incarnation: int
    node: str
    agent_incarnation: int
    address: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointRef:
    """A committed checkpoint: where it lies, what it continues, and the digest that proves it is the one meant.

    Attributes:
        uri: folder of the attempt.
        step: last step applied to the state in it.
        lineage: chain of steps it belongs to.
        attempt: unique per save.
        manifest_sha256: of its root manifest.
        committed_s: Unix time at which it was complete, by the clock of the leader that made it current; 0 where only
            the files are known.
    """

    uri: str
    step: int
    lineage: int
    attempt: str
    manifest_sha256: str
    committed_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRecord:
    """What the members of generation ``g`` do: finish or discard the open step, obtain the state, go on.

    Later generations inherit ``target_step`` and ``outcome``, so a second failure cannot flip the decision.

    Attributes:
        job_uid: the job.
        island: island id inside the job.
        job_generation: ``G``, the generation of the plan.
        generation: ``g`` of the island.
        predecessor: the generation committed before this one; 0 for the first.
        epoch: leader epoch that committed the record.
        nonce: makes every store prefix unique, even when a record is retried.
        lineage: lineage the members continue; rises when they roll back.
        members: in rank order; an agent is told of those that its workers need to know, see ``per_agent``.
        store_address: ``host:port`` of the collective store, beside one of the agents.
        target_step: the step whose state everybody holds before going on; 0 is the initial state.
        outcome: outcome of ``target_step`` for those who still have to apply it; None where nobody has to.
        rung: how ranks without the state obtain it.
        holders: ranks that hold the state at ``target_step``, or will once they applied ``outcome``; with rung
            ``start`` those that can still make it. Empty: everybody makes or loads it for itself.
        checkpoint: the checkpoint to load, with rung ``checkpoint`` (or ``start`` when resuming); with ``snapshot`` the
            newest one that the snapshot continues.
        snapshot: the snapshot to load, with rung ``snapshot``.
        checkpointed_step: newest step with a committed checkpoint in this lineage, -1 if none: it is not saved again.
        reason: one sentence for people.
        restarts: generations that were committed before this one.
        reporter: incarnation of the worker that reported in the predecessor, 0 if there was none.
        ranks: number of ranks where ``members`` are not all; 0: they are.
        node_rank: number of the agent that ``members`` were chosen for, among those with members, by lowest rank.
        nodes: number of such agents; 0 where ``members`` are all.
    """

    job_uid: str
    island: str
    job_generation: int
    generation: int
    predecessor: int
    epoch: int
    nonce: str
    lineage: int
    members: tuple[Member, ...]
    store_address: str
    target_step: int
    outcome: Outcome | None = None
    rung: Rung = Rung.START
    holders: tuple[int, ...] = ()
    checkpoint: CheckpointRef | None = None
    snapshot: SnapshotRef | None = None
    checkpointed_step: int = -1
    reason: str = ""
    restarts: int = 0
    reporter: int = 0
    ranks: int = 0
    node_rank: int = 0
    nodes: int = 0

    @property
    def world_size(self) -> int:
        """Number of ranks."""
        return self.ranks or len(self.members)

    def member(self, rank: int) -> Member | None:
        """Who has a rank, if that is told here."""
        if not self.ranks:
            return self.members[rank]
        return next((member for member in self.members if member.global_rank == rank), None)

    def per_agent(self) -> Mapping[int, GenerationRecord]:
        """The record as each agent (by incarnation) is told of it: its own members, rank 0 and the former reporter.

        So what is sent grows with the number of ranks, not with its square.
        """
        everybody: dict[int, list[Member]] = {}
        for member in self.members:
            everybody.setdefault(member.agent_incarnation, []).append(member)
        known = [m for m in self.members if m.global_rank == 0 or m.incarnation == self.reporter]
        told: dict[int, GenerationRecord] = {}
        for node_rank, (agent, own) in enumerate(everybody.items()):
            others = [member for member in known if member.agent_incarnation != agent]
            members = tuple(sorted((*own, *others), key=lambda member: member.global_rank))
            told[agent] = replace(
                self, members=members, ranks=self.world_size, node_rank=node_rank, nodes=len(everybody)
            )
        return told

    @property
    def store_prefix(self) -> str:
        """Prefix in the collective store: unique per job, island, generation and try."""
        return f"{self.job_uid}/{self.island}/{self.generation}/{self.nonce}"
