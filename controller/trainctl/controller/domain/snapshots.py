"""What is known of a job's snapshots in the memory of its nodes: for people and metrics.

Telemetry: which snapshot is loaded is decided from what stopped workers report. Pure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from trainctl.controller.domain.job_records import TrainProgress
from trainctl.controller.domain.save_cost import SaveCost, SaveTimes, cost_of, with_cost
from trainctl.core.records.part import CAUSES, NO_ROOM, OTHER
from trainctl.core.records.snapshot import SnapshotHeld, SnapshotRef, SnapshotsMade

MADE = "made"
"""How a snapshot ended that all nodes completed; the others ended with a cause."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeShare:
    """What one node has of a snapshot (message ``SnapshotNode``): numbers of its parts, and bytes of their files.

    ``failure_domain`` is what it fails together with; empty: with no other node.
    """

    node: str
    parts: tuple[int, ...]
    size_bytes: int = 0
    failure_domain: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotFigures:
    """Of one job.

    Attributes:
        newest: the newest snapshot that all nodes completed; None: there is none, or it is gone.
        complete_s: when it was complete, Unix seconds; 0 where nobody knows.
        parts: how many it has.
        nodes: what each node has of it, by name.
        generation: the generation that the next three are of.
        made: snapshots that its ranks have made.
        stopped: why they make no more; empty as long as they do.
        cause: of that, in a word; empty as long as nobody who knows it was heard.
        outcomes: how many snapshots of earlier generations were made, and how many failed, by cause.
        epoch: of the leader that heard last what workers made: another one may know of fewer than there were.
        costs: of the newest ones, where the interval between them is chosen by cost.
    """

    newest: SnapshotRef | None = None
    complete_s: float = 0.0
    parts: int = 0
    nodes: tuple[NodeShare, ...] = ()
    generation: int = 0
    made: int = 0
    stopped: str = ""
    cause: str = ""
    outcomes: Mapping[str, int] = field(default_factory=dict[str, int])
    epoch: int = 0
    costs: tuple[SaveCost, ...] = ()

    @property
    def uncopied(self) -> int:
        """Parts of the newest that a single node has."""
        keepers = Counter(part for share in self.nodes for part in share.parts)
        return sum(1 for part in range(self.parts) if keepers[part] < 2)

    @property
    def in_one_domain(self) -> int:
        """Parts of the newest that several nodes have, all of which fail together."""
        domains = [(share.failure_domain, share.parts) for share in self.nodes]
        keepers = [[domain for domain, parts in domains if part in parts] for part in range(self.parts)]
        return sum(1 for found in keepers if len(found) > 1 and found[0] and len(set(found)) == 1)

    @property
    def size_bytes(self) -> int:
        """Of the newest, on all nodes together."""
        return sum(share.size_bytes for share in self.nodes)

    @property
    def so_far(self) -> Mapping[str, int]:
        """All snapshots of the job by how they ended."""
        own = {MADE: self.made, self.cause: 1}
        keys = {*self.outcomes, *(key for key, count in own.items() if key and count)}
        return {key: self.outcomes.get(key, 0) + own.get(key, 0) for key in sorted(keys)}


def told(
    figures: SnapshotFigures,
    by_node: Mapping[str, SnapshotsMade],
    *,
    generation: int,
    nodes: Collection[str],
    now_s: float,
    epoch: int,
) -> SnapshotFigures:
    """With what the workers of a generation tell now.

    Args:
        figures: what was known.
        by_node: what was told, by the node that it is of; of other generations it does not count.
        generation: the committed one.
        nodes: those of its workers that are heard: until each has told of a snapshot, the one before is shown.
        now_s: Unix seconds.
        epoch: of the leader.
    """
    current = {node: made for node, made in by_node.items() if made.generation == generation}
    if not current:
        return figures
    figures = replace(_in_generation(figures, generation), epoch=epoch)
    ended = min((made for made in current.values() if made.error), key=lambda made: not made.cause, default=None)
    if ended is not None and not figures.cause:
        figures = replace(figures, stopped=ended.error, cause=_known(ended.cause))
    figures = replace(figures, made=max(figures.made, *(made.made for made in current.values())))
    held = {node: made.newest for node, made in sorted(current.items()) if made.newest is not None}
    if not held or not set(nodes) <= held.keys():
        return figures
    # In one generation each node has the same parts of every snapshot: who is a little late tells what it has of it.
    newest = max(held.values(), key=lambda one: one.snapshot.step)
    age_s = min(made.age_s for node, made in current.items() if node in held and held[node].snapshot == newest.snapshot)
    domains = {node: made.failure_domain for node, made in current.items()}
    return _with_newest(figures, newest.snapshot, held, domains, complete_s=now_s - age_s)


def with_costs(
    figures: SnapshotFigures, before: SnapshotFigures, by_node: Mapping[str, SnapshotsMade], progress: TrainProgress
) -> SnapshotFigures:
    """With what the newest snapshot cost, if it was not known ``before``: nodes tell of it again and again."""
    ref = figures.newest
    if ref is None or ref == before.newest:
        return figures
    own = [made for made in by_node.values() if made.newest is not None and made.newest.snapshot == ref]
    timed = [made for made in own if made.seconds > 0.0]  # older workers do not tell
    if not timed:
        return figures
    last = max(timed, key=lambda made: made.seconds)
    times = SaveTimes(step=ref.step, lineage=ref.lineage, stall_s=last.stall_s, seconds=last.seconds)
    return replace(figures, costs=with_cost(figures.costs, cost_of(times, progress)))


def found(
    figures: SnapshotFigures, whole: Sequence[tuple[SnapshotRef, Mapping[str, SnapshotHeld]]], *, generation: int
) -> SnapshotFigures:
    """With what stopped workers found on their nodes, oldest first, of which the next generation may make use."""
    figures = _in_generation(figures, generation)
    domains = {share.node: share.failure_domain for share in figures.nodes}
    for ref, held in reversed(whole):
        if not missing_parts(held):
            return _with_newest(figures, ref, held, domains, complete_s=0.0)
    return replace(figures, newest=None, complete_s=0.0, parts=0, nodes=())


def missing_parts(held: Mapping[str, SnapshotHeld]) -> tuple[int, ...]:
    """Parts of a snapshot that no node has."""
    here = {part for one in held.values() for part in one.held}
    return tuple(part for part in range(max((one.parts for one in held.values()), default=0)) if part not in here)


def _in_generation(figures: SnapshotFigures, generation: int) -> SnapshotFigures:
    """The counts of the generation before are added up, and those of this one begin."""
    if figures.generation == generation:
        return figures
    over = replace(figures, cause=figures.cause or OTHER) if figures.stopped else figures
    return replace(figures, generation=generation, made=0, stopped="", cause="", outcomes=over.so_far)


def _with_newest(
    figures: SnapshotFigures,
    ref: SnapshotRef,
    held: Mapping[str, SnapshotHeld],
    domains: Mapping[str, str],
    *,
    complete_s: float,
) -> SnapshotFigures:
    """When it was complete was told first by who was nearest to it: later words only repeat that."""
    same = figures.newest == ref
    shares = (
        NodeShare(node=node, parts=one.held, size_bytes=one.size_bytes, failure_domain=domains.get(node, ""))
        for node, one in sorted(held.items())
    )
    return replace(
        figures,
        newest=ref,
        complete_s=figures.complete_s if same else complete_s,
        parts=max(one.parts for one in held.values()),
        nodes=tuple(shares),
    )


def _known(cause: str) -> str:
    return cause if cause in ("", NO_ROOM, *CAUSES) else OTHER
