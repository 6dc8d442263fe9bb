"""What an agent is sent of its workers: the job's spec, which is the same for all of them, is converted once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from trainctl.core.records.worker import WorkerDesired
from trainctl.protos.convert import record_to_message
from trainctl.protos.v1 import records_pb2


class DesiredMessages:
    """Makes messages; remembers the newest spec of each job that it made one for."""

    def __init__(self) -> None:
        self._specs: dict[str, tuple[Mapping[str, object], records_pb2.TrainJob]] = {}

    def worker(self, desired: WorkerDesired) -> records_pb2.WorkerDesired:
        """The message that mirrors the record."""
        known = self._specs.get(desired.job_uid)
        if known is None or known[0] is not desired.spec:
            known = (desired.spec, record_to_message(desired.spec, records_pb2.TrainJob))
            self._specs[desired.job_uid] = known
        record = replace(desired.record, holders=()) if desired.record is not None else None
        message = record_to_message(replace(desired, spec={}, record=record), records_pb2.WorkerDesired)
        message.spec.CopyFrom(known[1])
        if desired.record is not None:  # as many as there are ranks
            message.record.holders.extend(desired.record.holders)
        return message

    def forget(self, job_uid: str) -> None:
        """The job needs no messages any more."""
        self._specs.pop(job_uid, None)
