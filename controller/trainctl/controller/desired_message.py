"""What an agent is sent of its workers: what is the same for all agents of a job is converted once."""

from __future__ import annotations

from dataclasses import dataclass, replace

from trainctl.core.records.generation import GenerationRecord
from trainctl.core.records.worker import Instruction, WorkerDesired
from trainctl.protos.convert import record_to_message
from trainctl.protos.v1 import agent_pb2, records_pb2


@dataclass(frozen=True, slots=True)
class _Shared:
    """What several workers of a job are told alike, and the bytes of the message that says it."""

    desired: WorkerDesired
    record: GenerationRecord | None
    message: bytes


class DesiredMessages:
    """Makes messages; remembers of each job the newest that all workers with one instruction are told alike."""

    def __init__(self) -> None:
        self._shared: dict[str, dict[Instruction, _Shared]] = {}

    def add(self, desired: WorkerDesired, agent: agent_pb2.AgentDesired) -> records_pb2.WorkerDesired:
        """Adds the message that mirrors the record to what an agent is sent."""
        # Written in place: a message of a thousand ranks that is made apart is copied for every agent.
        message = agent.workers.add()
        message.MergeFromString(self._shared_of(desired))
        message.slot, message.incarnation = desired.slot, desired.incarnation
        if desired.record is not None:
            message.record.node_rank = desired.record.node_rank
            message.record.members.extend(record_to_message(m, records_pb2.Member) for m in desired.record.members)
        return message

    def _shared_of(self, desired: WorkerDesired) -> bytes:
        alike = replace(desired, slot=0, incarnation=0, record=None)
        record = replace(desired.record, members=(), node_rank=0) if desired.record is not None else None
        known = self._shared.setdefault(desired.job_uid, {})
        found = known.get(desired.instruction)
        if found is None or found.desired != alike or found.record != record:
            message = record_to_message(replace(alike, record=record), records_pb2.WorkerDesired).SerializeToString()
            found = known[desired.instruction] = _Shared(alike, record, message)
        return found.message

    def forget(self, job_uid: str) -> None:
        """The job needs no messages any more."""
        self._shared.pop(job_uid, None)
