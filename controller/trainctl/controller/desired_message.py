"""What an agent is sent of its workers: what is the same for all agents of a job is converted once."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import lru_cache
from operator import attrgetter

from trainctl.core.records.generation import GenerationRecord, Member
from trainctl.core.records.worker import Instruction, WorkerDesired
from trainctl.protos.convert import record_to_message
from trainctl.protos.v1 import agent_pb2, records_pb2

_OWN = frozenset({"slot", "incarnation", "record"})
_OWN_OF_RECORD = frozenset({"members", "node_rank"})
_alike = attrgetter(*(field.name for field in fields(WorkerDesired) if field.name not in _OWN))
_alike_of_record = attrgetter(*(field.name for field in fields(GenerationRecord) if field.name not in _OWN_OF_RECORD))


@dataclass(frozen=True, slots=True)
class _Shared:
    """What several workers of a job are told alike, and the bytes of the message that says it."""

    told: object
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
            for member in desired.record.members:
                message.record.members.add().MergeFromString(_member(member))
        return message

    def _shared_of(self, desired: WorkerDesired) -> bytes:
        # Compared field by field, which is by identity for most: asked for by every worker of a job.
        told = _alike(desired), _alike_of_record(desired.record) if desired.record is not None else None
        known = self._shared.setdefault(desired.job_uid, {})
        found = known.get(desired.instruction)
        if found is None or found.told != told:
            record = replace(desired.record, members=(), node_rank=0) if desired.record is not None else None
            alike = replace(desired, slot=0, incarnation=0, record=record)
            message = record_to_message(alike, records_pb2.WorkerDesired).SerializeToString()
            found = known[desired.instruction] = _Shared(told, message)
        return found.message

    def forget(self, job_uid: str) -> None:
        """The job needs no messages any more."""
        self._shared.pop(job_uid, None)


@lru_cache(maxsize=4096)
def _member(member: Member) -> bytes:
    """Each agent of an island is told of rank 0, and again of its own ones in the next generation."""
    return record_to_message(member, records_pb2.Member).SerializeToString()
