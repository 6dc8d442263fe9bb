"""How the state store is, as a message."""

from __future__ import annotations

from trainctl.controller.leadership import Changes
from trainctl.controller.store.trial import StoreLook
from trainctl.protos.v1 import job_pb2


def store_message(look: StoreLook, changes: Changes, *, jobs_in_doubt: int) -> job_pb2.StoreStatus:
    """What a trial found, with what the controller knows of its own changes."""
    message = job_pb2.StoreStatus(
        took_s=look.took_s,
        confirmed_age_s=changes.confirmed_age_s,
        confirmed_took_s=changes.took_s,
        failed_age_s=changes.failed_age_s,
        failed=str(changes.failure) if changes.failure is not None else "",
        jobs_in_doubt=jobs_in_doubt,
    )
    if look.error is not None:
        message.error_code, message.error, message.remedy = look.error.code, str(look.error), look.error.hint
    condition = look.condition
    if condition is not None:
        message.size_bytes, message.limit_bytes = condition.size_bytes, condition.limit_bytes
        message.alarms.extend(condition.alarms)
        message.flaw = condition.flaw
        if condition.disk_free_bytes is not None:
            message.disk_free_bytes = condition.disk_free_bytes
    return message
