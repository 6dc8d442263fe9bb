"""Ways to save one small state, for tests in which that is interrupted; each removes what is older when it is done.

The values of a state are random bits drawn from its step, so that those of another step are not taken for them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

import torch

from trainctl.checkpoint.callbacks import unseen
from trainctl.checkpoint.engine import Attempt, assign, attempt_id, load
from trainctl.checkpoint.kept.catalog import survey
from trainctl.checkpoint.kept.retention import retain
from trainctl.checkpoint.layout.key import StateKey
from trainctl.checkpoint.layout.layout import rank_holder
from trainctl.checkpoint.library import Checkpointer, save_state
from trainctl.checkpoint.live.state import LocalState
from trainctl.checkpoint.memory.node_memory import NodeMemory, folder_of
from trainctl.checkpoint.save.saving import live_data
from trainctl.checkpoint.snapshot.background import BackgroundPart, Given
from trainctl.checkpoint.storage import descriptors, upload
from trainctl.core.records.snapshot import SnapshotsMade
from trainctl.core.system.faults import FaultPlan
from trainctl.parallel.collectives.port import PendingGroup
from trainctl.parallel.collectives.solo import SoloGroup
from trainctl.parallel.collectives.wait import Waiter
from trainctl.parallel.recovery.from_memory import MemoryLoad
from trainctl.parallel.session.memory_place import MemoryPlace
from trainctl.parallel.session.sealing import Collected
from unit.checkpoint.ranks import at_step, attempt, full_values, plain, rank_state, same_bits, save
from waiting import PATIENCE_S

Shapes = Mapping[str, tuple[int, ...]]
SHAPES: Shapes = {"w": (64, 48), "b": (5,), "none": (0, 4)}


def values_of(step: int, shapes: Shapes = SHAPES) -> dict[StateKey, torch.Tensor]:
    """Parameters, and something of an optimizer, which other files have in layout ``hf``."""
    parameters, moments = full_values(shapes, seed=2 * step), full_values(shapes, seed=2 * step + 1)
    return at_step(parameters | {key._replace(kind="exp_avg"): moment for key, moment in moments.items()}, step)


def state_of(values: Mapping[StateKey, torch.Tensor], *, blank: bool = False) -> LocalState:
    return rank_state(values, plain(values, 1), rank_holder(0), blank=blank)


def shapes_of(step: int) -> Shapes:
    """Always the same."""
    return SHAPES


def loaded_from(uri: str, shapes: Callable[[int], Shapes] = shapes_of) -> int:
    """The step of the newest checkpoint; whatever counts as one is whole and has the values of its step."""
    found = survey(uri)
    assert not found.damaged
    for info in found.checkpoints:
        values = values_of(info.ref.step, shapes(info.ref.step))
        state = state_of(values, blank=True)
        load(info.ref, state)
        assert holds(state, values)
    return found.checkpoints[0].ref.step


def two_parts(step: int) -> Shapes:
    """Of a state that takes two parts of an upload, as small as S3 wants them, at step 2 only."""
    return {**SHAPES, "w": (1024, 700)} if step == 2 else SHAPES


def save_in_parts(uri: str, step: int, env: Mapping[str, str]) -> None:
    """Saves a state with the shapes ``two_parts``; ``env`` leads to the store."""
    os.environ.update(env)
    upload.PART_BYTES = 5 << 20
    save_state(uri, state_of(values_of(step, two_parts(step))), step=step, keep=1)


def holds(state: LocalState, values: Mapping[StateKey, torch.Tensor]) -> bool:
    by_name = {(key.fqn, key.kind): value for key, value in values.items()}
    return all(same_bits(held.tensor, by_name[held.key.fqn, held.key.kind]) for held in state.tensors)


class Way(Protocol):
    """One way to save to a folder."""

    def save(self, folder: Path, step: int) -> None:
        """Saves the state of ``step``; on return what is older is gone."""
        ...

    def loaded(self, folder: Path) -> int:
        """Loads the newest, sees that it is right, and says its step."""
        ...


class ByTwoRanks:
    """Two writers and a coordinator that follow each other; then retention."""

    def __init__(self, layout: str) -> None:
        self._layout = layout

    def save(self, folder: Path, step: int) -> None:
        of = attempt(step, nonce=str(time.monotonic_ns()))
        save(folder, values_of(step), of=of, files=self._layout)
        retain(str(folder), job=of.job, keep=1, protect=frozenset({of.attempt}))

    def loaded(self, folder: Path) -> int:
        return loaded_from(str(folder))


class Beside:
    """The library, on a thread and past the cache of the disk, in pieces of two pages."""

    def __init__(self, layout: str) -> None:
        self._layout = layout

    def save(self, folder: Path, step: int) -> None:
        before, descriptors.PIECE_BYTES = descriptors.PIECE_BYTES, 8192
        try:
            with Checkpointer(str(folder), keep=1, layout=self._layout, retry_after_s=()) as checkpointer:
                checkpointer.async_save_state(state_of(values_of(step)), step=step)
        finally:
            descriptors.PIECE_BYTES = before

    def loaded(self, folder: Path) -> int:
        return loaded_from(str(folder))


class InMemory:
    """A snapshot on a node whose only rank is alone; as a session makes and loads it."""

    def save(self, folder: Path, step: int) -> None:
        told: list[SnapshotsMade] = []
        of = Attempt(job="job-1", step=step, lineage=1, epoch=1, attempt=attempt_id(time.monotonic_ns()))
        state, place = state_of(values_of(step)), self._place(folder, told)
        place.prepare()
        layout = plain(values_of(step), 1)
        data = live_data(state, assign(layout)[rank_holder(0)])
        write = place.write(of, layout.shapes, wrote=unseen)
        part = BackgroundPart(Given(data), write, share=place.share(of), retry_after_s=place.retry_after_s)
        part.start()
        assert part.wait(PATIENCE_S)
        assert part.outcome is not None
        save = Collected(attempt=of, state=state, parts=[part.outcome], began_s=0.0, stall_s=0.0, pool_bytes=0)
        seal = place.seal(save, before=None, changed=lambda: None)
        assert seal._over.wait(PATIENCE_S)
        place.settle(of, [seal.ref])
        assert [made.error for made in told] == [""]

    def loaded(self, folder: Path) -> int:
        memory = NodeMemory(folder, "job-1")
        newest = memory.held()[-1]
        assert newest.held == (0,)
        state = state_of(values_of(0), blank=True)
        load = MemoryLoad(snapshot=newest.snapshot, memory=memory, node="a", group=_alone(), waiter=_waiter())
        load.into(state)
        assert holds(state, values_of(newest.snapshot.step))
        assert memory.where(newest.snapshot) == Path(memory.uri) / folder_of(newest.snapshot)
        return newest.snapshot.step

    def _place(self, folder: Path, told: list[SnapshotsMade]) -> MemoryPlace:
        def connect() -> PendingGroup:
            raise AssertionError("a rank that is alone copies nothing")

        return MemoryPlace(
            NodeMemory(folder, "job-1"), node="a", group=_alone(), waiter=_waiter(), connect=connect,
            faults=FaultPlan(), notice=print, told=told.append, generation=1,
        )  # fmt: skip


def _alone() -> SoloGroup:
    return SoloGroup(torch.device("cpu"))


def _waiter() -> Waiter:
    return Waiter(aborted=lambda: False, touch=lambda: None, where=lambda: "a test", timeout_s=PATIENCE_S)


WAYS: Mapping[str, Way] = {
    "chunked": ByTwoRanks("chunked"),
    "hf": ByTwoRanks("hf"),
    "chunked-beside": Beside("chunked"),
    "hf-beside": Beside("hf"),
    "in-memory": InMemory(),
}
