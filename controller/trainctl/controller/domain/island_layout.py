"""The layouts of a data-parallel island as the ladder sees them: three coarse tensors, whole on every holder.

The controller never learns parameter names; where sharding makes ranges differ between ranks, only this file changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from trainctl.checkpoint.layout.key import StateKey, StateVersion
from trainctl.checkpoint.layout.layout import Layout, file_holder, host_holder, rank_holder, replicated
from trainctl.checkpoint.layout.region import Flat
from trainctl.core.records.generation import CheckpointRef
from trainctl.core.records.snapshot import SnapshotHeld
from trainctl.core.records.train_spec import TrainSpec
from trainctl.parallel.plan.data_rules import likely_vocabulary
from trainctl.parallel.plan.model_size import llama_parameters

STATE_KINDS = ("param", "exp_avg", "exp_avg_sq")
"""What each parameter drags along with AdamW, all in the same dtype."""


def island_layout(island: str, train: TrainSpec, version: StateVersion, ranks: Iterable[int]) -> Layout:
    """The layout in which each of ``ranks`` holds the whole state of ``version``."""
    return replicated(_shapes(island, train, version), [rank_holder(rank) for rank in ranks])


def checkpoint_layout(island: str, train: TrainSpec, ref: CheckpointRef) -> Layout:
    """The layout of a committed checkpoint: a complete one holds everything."""
    version = StateVersion(lineage=ref.lineage, step=ref.step)
    return replicated(_shapes(island, train, version), [file_holder(ref.uri)])


def snapshot_layout(island: str, train: TrainSpec, held: Mapping[str, SnapshotHeld]) -> Layout:
    """The layout of a snapshot in the memory of nodes, by node: each of its parts is an equal share of everything."""
    some = next(iter(held.values()))
    shapes = _shapes(island, train, StateVersion(lineage=some.snapshot.lineage, step=some.snapshot.step))

    def share(size: int, part: int) -> Flat:
        return Flat(size * part // some.parts, size * (part + 1) // some.parts)

    holders = {
        host_holder(node): {key: tuple(share(shape[0], part) for part in one.held) for key, shape in shapes.items()}
        for node, one in held.items()
    }
    return Layout(shapes, holders)


def _shapes(island: str, train: TrainSpec, version: StateVersion) -> dict[StateKey, tuple[int, ...]]:
    size = llama_parameters(train.model, likely_vocabulary(train.tokenizer))
    dtype = "F64" if train.precision == "float64" else "F32"
    return {StateKey("island", kind, dtype, island, version): (size,) for kind in STATE_KINDS}
