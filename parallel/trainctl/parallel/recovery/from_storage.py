"""A state that comes from a checkpoint on storage: one of this job's, or one that was imported."""

from __future__ import annotations

from dataclasses import dataclass

from trainctl.checkpoint.kept.damage import mark_damaged
from trainctl.checkpoint.kept.origin import origin_of
from trainctl.checkpoint.layout.key import StateVersion
from trainctl.checkpoint.live.state import BUFFER, PARAM, LocalState
from trainctl.checkpoint.load.load_watch import LoadWatch
from trainctl.checkpoint.load.loading import load
from trainctl.checkpoint.load.sharing import Sharing
from trainctl.core.errors import DamagedCheckpointError, UnavailableError
from trainctl.core.records.generation import CheckpointRef, GenerationRecord
from trainctl.parallel.collectives.port import Group
from trainctl.parallel.collectives.wait import Waiter
from trainctl.parallel.replica.replica import Replica


class StateLostError(UnavailableError):
    """The initial state is wanted and no worker can make it any more; new ones in their places can."""

    code = "STATE_LOST"


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageLoad:
    """One rank's load.

    Attributes:
        record: says which step and lineage the state will be at.
        replica: is filled.
        group: the ranks of the generation, all of which load.
        waiter: how to wait for them; touched, since loading may take long.
        watch: told how far it is.
    """

    record: GenerationRecord
    replica: Replica
    group: Group
    waiter: Waiter
    watch: LoadWatch

    def of(self, ref: CheckpointRef) -> dict[str, int]:
        """Loads it; the bytes of this rank's state, by source.

        Raises:
            StateLostError: it was imported, and this worker has trained.
            DamagedCheckpointError: it is not what was saved; it is marked so that nobody takes it for the newest.
            CheckpointError: it cannot be loaded.
        """
        try:
            return self._loaded(ref)
        except DamagedCheckpointError as error:
            mark_damaged(ref, error)
            raise

    def _loaded(self, ref: CheckpointRef) -> dict[str, int]:
        origin = origin_of(ref)
        if origin is not None and not self.replica.as_built:
            raise StateLostError(
                f"generation {self.record.generation} starts from {ref.uri}, which was imported and does not say what "
                "the program registers beside the weights, and this worker has trained; a new one takes its place"
            )
        self.replica.make_empty()
        version = StateVersion(self.record.lineage, self.record.target_step)
        state = self.replica.state(version)
        if origin is not None and not origin.optimizer:
            state = state.of_kinds(PARAM, BUFFER)
        objects = load(
            ref,
            state,
            cast=origin is not None,
            verify_first=False,
            alive=self.waiter.touch,
            watch=self.watch,
            sharing=self._sharing(state),
        )
        cursor = self.replica.import_objects(objects) if origin is None else self.replica.begin_with(origin, objects)
        self.replica.stand_at(lineage=self.record.lineage, step=self.record.target_step, cursor=cursor)
        self.replica.checkpoint = ref
        size = sum(tensor.tensor.numel() * tensor.tensor.element_size() for tensor in state.tensors)
        return {ref.uri: size}

    def _sharing(self, state: LocalState) -> Sharing | None:
        """All ranks of the generation load the same checkpoint."""
        if self.group.size == 1:
            return None
        wanted = self.replica.holding.layout(self.group, state, waiter=self.waiter)
        return Sharing(self.group, wanted, check=lambda: self.waiter.check(alive=False))
