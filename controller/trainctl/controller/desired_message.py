"""What an agent is sent of its workers: what is the same for all agents of a job is converted once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from trainctl.core.records.generation import GenerationRecord
from trainctl.core.records.worker import WorkerDesired
from trainctl.protos.convert import record_to_message
from trainctl.protos.v1 import records_pb2


class DesiredMessages:
    """Makes messages; remembers the newest spec and record of each job that it made one for."""

    def __init__(self) -> None:
        self._specs: dict[str, tuple[Mapping[str, object], records_pb2.TrainJob]] = {}
        self._records: dict[str, tuple[GenerationRecord, records_pb2.GenerationRecord]] = {}

    def worker(self, desired: WorkerDesired) -> records_pb2.WorkerDesired:
        """The message that mirrors the record."""
        known = self._specs.get(desired.job_uid)
        if known is None or known[0] is not desired.spec:
            known = (desired.spec, record_to_message(desired.spec, records_pb2.TrainJob))
            self._specs[desired.job_uid] = known
        message = record_to_message(replace(desired, spec={}, record=None), records_pb2.WorkerDesired)
        message.spec.CopyFrom(known[1])
        if desired.record is not None:
            message.record.CopyFrom(self._shared(desired.record))
            message.record.node_rank = desired.record.node_rank
            message.record.members.extend(record_to_message(m, records_pb2.Member) for m in desired.record.members)
        return message

    def _shared(self, record: GenerationRecord) -> records_pb2.GenerationRecord:
        """All of a record but what each agent is told another of."""
        shared = replace(record, members=(), node_rank=0)
        known = self._records.get(record.job_uid)
        if known is None or known[0] != shared:
            known = self._records[record.job_uid] = shared, record_to_message(shared, records_pb2.GenerationRecord)
        return known[1]

    def forget(self, job_uid: str) -> None:
        """The job needs no messages any more."""
        self._specs.pop(job_uid, None)
        self._records.pop(job_uid, None)
