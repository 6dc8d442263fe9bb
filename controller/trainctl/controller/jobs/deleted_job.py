"""What is remembered of a job that was deleted: for agents that have not heard of it, and for requests sent again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from trainctl.controller.domain.job_state import JobState
from trainctl.core.codec import from_wire
from trainctl.core.errors import NotFoundError
from trainctl.core.units import format_time


class JobDeletedError(NotFoundError):
    """A request that took effect comes again, and its job has been deleted since."""

    code = "JOB_DELETED"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeletedJob:
    """A job that is gone.

    Attributes:
        uid: of the job.
        name: it had.
        deleted_s: when the last of it went, Unix seconds; 0: nobody wrote that down.
        by: who asked for it; empty: nobody wrote that down.
    """

    uid: str
    name: str = ""
    deleted_s: float = 0.0
    by: str = ""

    @classmethod
    def of(cls, state: JobState, now_s: float) -> DeletedJob:
        """That this job went now."""
        by = state.deletion.by if state.deletion is not None else ""
        return cls(uid=state.uid, name=state.name, deleted_s=now_s, by=by)

    @classmethod
    def from_stored(cls, value: Any) -> DeletedJob:
        """Reads what is stored; schema 1 knew the uid alone."""
        return cls(uid=value) if isinstance(value, str) else from_wire(cls, value)

    def error(self) -> JobDeletedError:
        """What somebody hears whose request took effect on it, and who sends that again."""
        when = f" at {format_time(self.deleted_s)}" if self.deleted_s else ""
        by = f" by {self.by}" if self.by else ""
        named = f"job {self.name} ({self.uid})" if self.name else f"the job {self.uid}"
        return JobDeletedError(
            f"this request took effect before, on {named}; that has been deleted since{when}{by}",
            hint="nothing was done now; to ask for it anew, use a new request id",
        )
