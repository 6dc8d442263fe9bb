"""Loads a snapshot out of the memory of the nodes, whatever the ranks and nodes that are left.

A node whose ranks need files that it does not have gets them from one that has; then everybody loads as from any
checkpoint, with every checksum. What was fetched stays: so the snapshot is again on as many nodes as before. A file
that is damaged in one memory is taken from another one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from trainctl.checkpoint.exchange.lanes import run_lanes
from trainctl.checkpoint.live.state import LocalState
from trainctl.checkpoint.load.load_watch import LoadWatch
from trainctl.checkpoint.load.loading import load, plan_load
from trainctl.checkpoint.manifest.names import ROOT_MANIFEST
from trainctl.checkpoint.manifest.records import RootManifest
from trainctl.checkpoint.memory.node_memory import NodeMemory, folder_of
from trainctl.core.errors import CheckpointError, CollectiveError, UnavailableError
from trainctl.core.records.generation import CheckpointRef
from trainctl.core.records.snapshot import SnapshotRef
from trainctl.parallel.collectives.gather import gather_json
from trainctl.parallel.collectives.port import Group
from trainctl.parallel.collectives.wait import Waiter
from trainctl.parallel.plan.fetching import plan_fetches
from trainctl.parallel.recovery.file_exchange import FileExchange

T = TypeVar("T")
_TRIES = 4
"""Each finds what the one before could not read: the root manifest, those of the parts, the data."""
_NAMED = 5


class SnapshotLostError(UnavailableError):
    """The snapshot is not, or not whole, in the nodes' memory any more; the next decision will not choose it."""

    code = "SNAPSHOT_LOST"


class _HurtError(Exception):
    """Something of the snapshot cannot be used on some rank; raised on all of them at the same point.

    Args:
        own: what this rank found; empty if it was others.
        said: what each rank found, and its node.
    """

    def __init__(self, own: str, said: Sequence[Mapping[str, str]]) -> None:
        super().__init__(own or next(one["error"] for one in said if one["error"]))
        self.own = own
        self.nodes = [one["node"] for one in said]


@dataclass(slots=True, kw_only=True)
class MemoryLoad:
    """One rank's part in it; all ranks of the group run it together.

    Attributes:
        snapshot: which one.
        memory: of this rank's node.
        node: where this rank runs.
        group: the ranks of the new generation.
        waiter: how to wait for them.
        watch: told how far it is, and what took how long.
        damaged: what was not as it was saved, on which node; other copies of it were taken. All ranks know the same.
    """

    snapshot: SnapshotRef
    memory: NodeMemory
    node: str
    group: Group
    waiter: Waiter
    watch: LoadWatch = field(default_factory=LoadWatch)
    damaged: list[str] = field(default_factory=list[str])

    def into(self, state: LocalState) -> tuple[Mapping[str, Any], dict[str, int]]:
        """Fills the live tensors; returns the objects, and bytes received by source.

        Raises:
            Interrupted: as ``Waiter.wait``.
            CollectiveError: so does that, or another rank found that it cannot be loaded.
            SnapshotLostError: it is not whole any more, or what is damaged has no other copy. What this node has of it
                is removed.
        """
        exchange = FileExchange(self.group)
        try:
            objects = self._load(exchange, state)
        except (CheckpointError, OSError) as error:
            self.memory.remove([folder_of(self.snapshot)])
            raise SnapshotLostError(
                f"the snapshot of step {self.snapshot.step} cannot be loaded on {self.node}: {error}",
                hint="an older snapshot or the newest checkpoint is loaded instead",
            ) from error
        fetched = {f"rank {rank}": count for rank, count in exchange.received_bytes.items()}
        size = sum(tensor.tensor.numel() * tensor.tensor.element_size() for tensor in state.tensors)
        return objects, {**fetched, f"memory of {self.node}": size}

    def _load(self, exchange: FileExchange, state: LocalState) -> Mapping[str, Any]:
        """Raises: CheckpointError, OSError: without what is damaged there is no whole snapshot left."""
        for _ in range(_TRIES - 1):
            try:
                return self._try(exchange, state)
            except _HurtError as hurt:
                self._drop_damaged(hurt)
        try:
            return self._try(exchange, state)
        except _HurtError as hurt:
            raise self._given_up(str(hurt), by_us=bool(hurt.own)) from hurt

    def _try(self, exchange: FileExchange, state: LocalState) -> Mapping[str, Any]:
        """Raises: _HurtError: one rank cannot use what is there."""
        with self.watch.fetching():
            root = self._gather_manifests(exchange)
        ref = self._ref(root)
        plan = self._together(lambda: plan_load(ref, state, watch=self.watch))
        with self.watch.fetching():
            self._fetch(exchange, self._held(root), set(plan.files), _sizes(root))
        alive, watch = self.waiter.touch, self.watch
        return self._together(
            lambda: load(ref, state, plan=plan, verify_first=False, all_here=False, alive=alive, watch=watch)
        )

    def _together(self, do: Callable[[], T]) -> T:
        """What all ranks do before any goes on: where one fails, all stop at this point."""
        done: list[T] = []
        error = ""
        try:
            done.append(do())
        except (CheckpointError, OSError) as failed:
            error = str(failed) or type(failed).__name__
        own = {"node": self.node, "error": error}
        said = gather_json(self.group, own, waiter=self.waiter, what="learning whether a snapshot is whole")
        if any(one["error"] for one in said):
            raise _HurtError(error, said)
        return done[0]

    def _drop_damaged(self, hurt: _HurtError) -> None:
        """Every node looks at all that it has, and keeps what is right.

        Raises:
            CheckpointError, CollectiveError: nothing is damaged anywhere, so that trying again does not help.
        """
        speaks = hurt.nodes.index(self.node) == self.group.rank
        found: Mapping[str, str] = self._dropped() if speaks else {}
        own = [f"{self.node}: {what}" for what in found.values()]
        said = gather_json(self.group, own, waiter=self.waiter, what="learning what of a snapshot is damaged")
        every = [what for one in said for what in one]
        if not every:
            raise self._given_up(str(hurt), by_us=bool(hurt.own))
        self.damaged += every

    def _dropped(self) -> Mapping[str, str]:
        """What was wrong with the files that were removed here, by path."""

        def progress(_done_bytes: int, _size_bytes: int) -> None:
            self.waiter.touch()

        return self.memory.drop_damaged(self.snapshot, progress=progress)

    def _given_up(self, why: str, *, by_us: bool) -> Exception:
        """Who found that it cannot be loaded ends, and says so; the others wait for what is decided then."""
        return CheckpointError(why) if by_us else CollectiveError(f"others cannot load the snapshot: {why}")

    def _ref(self, root: RootManifest) -> CheckpointRef:
        uri = str(self.memory.where(self.snapshot))
        return CheckpointRef(uri=uri, step=root.step, lineage=root.lineage, attempt=root.attempt, manifest_sha256="")

    def _gather_manifests(self, exchange: FileExchange) -> RootManifest:
        """The root manifest first, which says what else there is; then those of all parts, and their contents."""
        has_root = (self.memory.where(self.snapshot) / ROOT_MANIFEST).is_file()
        self._fetch(exchange, {ROOT_MANIFEST} if has_root else set(), {ROOT_MANIFEST}, {ROOT_MANIFEST: 1})
        root = self._together(lambda: self.memory.root(self.snapshot))
        manifests = {part.manifest.path for part in root.parts}
        manifests |= {root.contents.path} if root.contents is not None else set()
        self._fetch(exchange, self._held(root), manifests, _sizes(root))
        return root

    def _held(self, root: RootManifest) -> set[str]:
        return {file.path for file in root.stored_files if self.memory.has(self.snapshot, file)}

    def _fetch(self, exchange: FileExchange, held: set[str], wanted: set[str], sizes: Mapping[str, int]) -> None:
        """Every rank says what its node has and what it wants; then the files go where they are missing."""
        own = {"node": self.node, "held": sorted(held), "wanted": sorted(wanted)}
        said = gather_json(self.group, own, waiter=self.waiter, what="learning which node has what of a snapshot")
        nodes = [one["node"] for one in said]
        plan = plan_fetches(nodes, _by_node(nodes, said, "held"), _by_node(nodes, said, "wanted"), sizes)
        if plan.missing:
            damaged = "".join(f"; {what}" for what in self.damaged[:_NAMED])
            why = f"no node has {', '.join(plan.missing[:_NAMED])}{damaged}"
            raise self._given_up(why, by_us=not wanted.isdisjoint(plan.missing))
        folder, rank = self.memory.where(self.snapshot), self.group.rank
        incoming = [fetch for fetch in plan.fetches if fetch.destination == rank]
        self.watch.to_fetch(sum(sizes[path] for fetch in incoming for path in fetch.paths))
        lanes = [exchange.receive(folder, fetch.source, got=self.watch.fetched) for fetch in incoming]
        lanes += [
            exchange.send(folder, fetch.paths, fetch.destination) for fetch in plan.fetches if fetch.source == rank
        ]
        run_lanes(lanes, alive=self.waiter.touch, check=self.waiter.check)
        # One rank fetches for its node: the others must not look before all is there.
        gather_json(self.group, True, waiter=self.waiter, what="fetching a snapshot")


def _by_node(nodes: Sequence[str], said: Sequence[Mapping[str, Any]], what: str) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for node, one in zip(nodes, said, strict=True):
        found.setdefault(node, set()).update(one[what])
    return found


def _sizes(root: RootManifest) -> dict[str, int]:
    return {file.path: file.size_bytes for file in root.stored_files}
