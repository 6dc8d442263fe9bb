"""Loads a snapshot out of the memory of the nodes, whatever the ranks and nodes that are left.

A node whose ranks need files that it does not have gets them from one that has; then everybody loads as from any
checkpoint, with every checksum. What was fetched stays: so the snapshot is again on as many nodes as before.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from trainctl.checkpoint.exchange.lanes import run_lanes
from trainctl.checkpoint.load_watch import LoadWatch
from trainctl.checkpoint.loading import load, plan_load
from trainctl.checkpoint.manifest.names import ROOT_MANIFEST
from trainctl.checkpoint.manifest.records import RootManifest
from trainctl.checkpoint.memory.node_memory import NodeMemory, name_of
from trainctl.checkpoint.state import LocalState
from trainctl.core.errors import CheckpointError, UnavailableError
from trainctl.core.records.generation import CheckpointRef
from trainctl.core.records.snapshot import SnapshotRef
from trainctl.parallel.collectives.gather import gather_json
from trainctl.parallel.collectives.port import Group
from trainctl.parallel.collectives.wait import Waiter
from trainctl.parallel.plan.fetching import plan_fetches
from trainctl.parallel.recovery.file_exchange import FileExchange


class SnapshotLostError(UnavailableError):
    """The snapshot is not, or not whole, in the nodes' memory any more; the next decision will not choose it."""

    code = "SNAPSHOT_LOST"


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
    """

    snapshot: SnapshotRef
    memory: NodeMemory
    node: str
    group: Group
    waiter: Waiter
    watch: LoadWatch = field(default_factory=LoadWatch)

    def into(self, state: LocalState) -> tuple[Mapping[str, Any], dict[str, int]]:
        """Fills the live tensors; returns the objects, and bytes received by source.

        Raises:
            Interrupted, CollectiveError: as ``Waiter.wait``.
            SnapshotLostError: it is not whole any more, or damaged; what this node has of it is removed.
        """
        exchange = FileExchange(self.group)
        try:
            with self.watch.fetching():
                root = self._gather_manifests(exchange)
            ref = self._ref(root)
            plan = plan_load(ref, state, watch=self.watch)
            with self.watch.fetching():
                self._gather_data(exchange, plan.files)
            objects = load(
                ref, state, plan=plan, verify_first=False, all_here=False, alive=self.waiter.touch, watch=self.watch
            )
        except (CheckpointError, OSError) as error:
            self.memory.remove([name_of(self.snapshot)])
            raise SnapshotLostError(
                f"the snapshot of step {self.snapshot.step} cannot be loaded on {self.node}: {error}",
                hint="an older snapshot or the newest checkpoint is loaded instead",
            ) from error
        fetched = {f"rank {rank}": count for rank, count in exchange.received_bytes.items()}
        size = sum(tensor.tensor.numel() * tensor.tensor.element_size() for tensor in state.tensors)
        return objects, {**fetched, f"memory of {self.node}": size}

    def _ref(self, root: RootManifest) -> CheckpointRef:
        uri = str(self.memory.where(self.snapshot))
        return CheckpointRef(uri=uri, step=root.step, lineage=root.lineage, attempt=root.attempt, manifest_sha256="")

    def _gather_manifests(self, exchange: FileExchange) -> RootManifest:
        """The root manifest first, which says what else there is; then those of all parts, and their contents."""
        has_root = (self.memory.where(self.snapshot) / ROOT_MANIFEST).is_file()
        self._fetch(exchange, {ROOT_MANIFEST} if has_root else set(), {ROOT_MANIFEST}, {ROOT_MANIFEST: 1})
        root = self.memory.root(self.snapshot)
        manifests = {part.manifest.path for part in root.parts}
        manifests |= {root.contents.path} if root.contents is not None else set()
        self._fetch(exchange, self._held(root), manifests, _sizes(root))
        return root

    def _gather_data(self, exchange: FileExchange, needed: Iterable[str]) -> None:
        root = self.memory.root(self.snapshot)
        self._fetch(exchange, self._held(root), set(needed), _sizes(root))

    def _held(self, root: RootManifest) -> set[str]:
        return {file.path for file in root.stored_files if self.memory.has(self.snapshot, file)}

    def _fetch(self, exchange: FileExchange, held: set[str], wanted: set[str], sizes: Mapping[str, int]) -> None:
        """Every rank says what its node has and what it wants; then the files go where they are missing."""
        own = {"node": self.node, "held": sorted(held), "wanted": sorted(wanted)}
        said = gather_json(self.group, own, waiter=self.waiter, what="learning which node has what of a snapshot")
        nodes = [one["node"] for one in said]
        plan = plan_fetches(nodes, _by_node(nodes, said, "held"), _by_node(nodes, said, "wanted"), sizes)
        if plan.missing:
            raise CheckpointError(f"no node has {', '.join(plan.missing[:5])}")
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
