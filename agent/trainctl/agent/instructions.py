"""What the controller wants of each worker, as far as this version can read it."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import replace

from trainctl.agent.state import WorkerKey
from trainctl.core.codec import WireError
from trainctl.core.records.worker import WorkerDesired, WorkerObserved, WorkerPhase
from trainctl.protos.convert import message_to_record
from trainctl.protos.v1 import records_pb2
from trainctl.protos.version import package_version

_LOG = logging.getLogger(__name__)
_LONGEST = 300


class Instructions:
    """Reads the desired state worker by worker: where one cannot be read, that worker keeps the one it has.

    A worker without one is not begun. People hear of it by a notice of the worker.
    """

    def __init__(self) -> None:
        self._read: dict[WorkerKey, WorkerDesired] = {}
        self._unread: dict[WorkerKey, str] = {}

    def read(self, messages: Iterable[records_pb2.WorkerDesired]) -> list[WorkerDesired]:
        """The whole desired state of the node, former instructions included."""
        read: dict[WorkerKey, WorkerDesired] = {}
        unread: dict[WorkerKey, str] = {}
        for message in messages:
            key = WorkerKey(job_uid=message.job_uid, slot=message.slot, incarnation=message.incarnation)
            try:
                read[key] = _understood(message)
            except WireError as error:
                unread[key] = str(error)[:_LONGEST]
                if key in self._read:
                    read[key] = self._read[key]
        for key, why in unread.items():
            if self._unread.get(key) != why:
                _LOG.error("%s: %s", key, _notice(why, kept=key in read))
        self._read, self._unread = read, unread
        return list(read.values())

    def noted(self, workers: Iterable[WorkerObserved]) -> tuple[WorkerObserved, ...]:
        """The same observations, with a notice where there is an instruction that cannot be read."""
        if not self._unread:
            return tuple(workers)
        seen = {WorkerKey(job_uid=w.job_uid, slot=w.slot, incarnation=w.incarnation): w for w in workers}
        for key, why in self._unread.items():
            worker = seen.get(key) or WorkerObserved(
                job_uid=key.job_uid, slot=key.slot, incarnation=key.incarnation, pid=0, phase=WorkerPhase.STARTING
            )
            notices = (*worker.notices, _notice(why, kept=key in self._read))
            seen[key] = replace(worker, notices=notices)
        return tuple(seen.values())


def _understood(message: records_pb2.WorkerDesired) -> WorkerDesired:
    """Raises: WireError: it says something that has to be carried out and is not known here."""
    desired = message_to_record(message, WorkerDesired)
    outcome = desired.record.outcome if desired.record is not None else None
    if outcome is not None and not outcome.action.known:
        raise WireError(f"WorkerDesired.record.outcome.action: expected StepAction, found {outcome.action.value!r}")
    return desired


def _notice(why: str, *, kept: bool) -> str:
    then = "the worker goes on with the former one" if kept else "the worker is not started"
    return (
        f"the agent (trainctl {package_version()}) cannot read the controller's instruction, so {then}: {why}; "
        "upgrade the agent, or use the controller's former version"
    )
