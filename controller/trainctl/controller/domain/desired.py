"""What each agent shall run: a pure function of the persisted state, so a restarted controller says the same."""

from __future__ import annotations

from collections.abc import Mapping

from trainctl.controller.domain.job_state import Hold, IslandState, JobState, Slot
from trainctl.controller.domain.kept_checkpoints import kept_checkpoints, to_read_back
from trainctl.controller.domain.states import TERMINAL, GenerationPhase, JobPhase, SlotState
from trainctl.core.codec import to_wire
from trainctl.core.records.generation import GenerationRecord
from trainctl.core.records.spec import TrainJob
from trainctl.core.records.worker import Instruction, WorkerDesired

_STOP_GRACE_S = 10.0


def desired_workers(state: JobState) -> Mapping[int, tuple[WorkerDesired, ...]]:
    """The workers of a job that each agent (by incarnation) shall have, in slot order. What is not listed is killed."""
    return DesiredWorkers().of(state)


class DesiredWorkers:
    """``desired_workers`` of one job over time: what did not change is not made, nor compared, again."""

    def __init__(self) -> None:
        self._spec: tuple[TrainJob, Mapping[str, object]] | None = None
        self._told: dict[str, _Told] = {}

    def of(self, state: JobState) -> Mapping[int, tuple[WorkerDesired, ...]]:
        """As ``desired_workers``."""
        if state.phase in TERMINAL:
            return {}
        if self._spec is None or self._spec[0] is not state.spec:
            self._spec = state.spec, to_wire(state.spec)
        for island in state.islands:
            known = self._told.get(island.id)
            if known is None or known.record is not island.record:
                self._told[island.id] = _Told(island.record)
        return _desired_workers(state, self._told, self._spec[1])


def _desired_workers(
    state: JobState, told: Mapping[str, _Told], spec: Mapping[str, object]
) -> Mapping[int, tuple[WorkerDesired, ...]]:
    found: dict[int, list[WorkerDesired]] = {}
    for island in state.islands:
        for slot in island.slots:
            if slot.state is not SlotState.EMPTY:
                wanted = _desired(state, island, slot, told[island.id], spec)
                found.setdefault(slot.agent_incarnation, []).append(wanted)
    return {agent: tuple(workers) for agent, workers in sorted(found.items())}


class _Told:
    """What the committed record of an island, if there is one, says to each of its workers."""

    def __init__(self, record: GenerationRecord | None) -> None:
        self.record = record
        self.members = frozenset(m.incarnation for m in record.members) if record is not None else frozenset[int]()
        self.rank_0 = record.members[0].incarnation if record is not None else 0
        self.records: Mapping[int, GenerationRecord] = record.per_agent() if record is not None else {}


def _desired(
    state: JobState, island: IslandState, slot: Slot, told: _Told, spec: Mapping[str, object]
) -> WorkerDesired:
    instruction, generation, record = _instruction(island, slot, told)
    cancel = state.cancel
    stopping = instruction is Instruction.STOP
    trains = island.entered and island.generation_phase is GenerationPhase.COMMITTED
    save = state.phase is JobPhase.CANCELLING and cancel is not None and cancel.checkpoint and trains
    hold = island.hold is not Hold.NONE and instruction is Instruction.RUN
    removes = slot.incarnation == told.rank_0 and instruction in (Instruction.RUN, Instruction.STOP)
    return WorkerDesired(
        job_uid=state.uid,
        job_name=state.name,
        island=island.id,
        slot=slot.index,
        incarnation=slot.incarnation,
        instruction=instruction,
        generation=generation,
        record=record,
        spec=spec,
        workdir=state.workdir,
        grace_s=cancel.grace_s if cancel is not None else _STOP_GRACE_S,
        checkpoint_on_stop=(stopping and save) or (hold and island.hold is Hold.SAVE),
        hold=hold,
        checkpoint_interval_s=state.checkpoint_interval.interval_s if state.checkpoint_interval is not None else 0.0,
        snapshot_interval_s=state.snapshot_interval.interval_s if state.snapshot_interval is not None else 0.0,
        kept_checkpoints=kept_checkpoints(state) if removes else (),
        read_back=to_read_back(state) if removes else "",
    )


def _instruction(island: IslandState, slot: Slot, told: _Told) -> tuple[Instruction, int, GenerationRecord | None]:
    """A worker that is counted on hears PREPARE before it is forked, and answers as soon as it can."""
    committed = island.record.generation if island.record is not None else 0
    if slot.state is SlotState.CONDEMNED:
        return Instruction.KILL, committed, None
    if slot.state is SlotState.DRAINING:
        return Instruction.STOP, committed, None
    if island.proposal is not None and island.proposal.takes(slot.index):
        return Instruction.PREPARE, island.proposal.generation, None
    if slot.incarnation in told.members:
        return Instruction.RUN, committed, told.records[slot.agent_incarnation]
    return Instruction.STANDBY, 0, None
