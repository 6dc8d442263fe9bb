"""Terms of leading: what each leader leaves behind for the next one, and what a job's history says of the change."""

from __future__ import annotations

from dataclasses import dataclass, replace

from trainctl.controller.domain.events import LEADER_CHANGED, EventDraft
from trainctl.controller.domain.job_state import JobState
from trainctl.controller.domain.reconcile.result import Reconciliation
from trainctl.controller.domain.states import TERMINAL
from trainctl.core.units import format_duration


@dataclass(frozen=True, slots=True, kw_only=True)
class TermRecord:
    """What a leader writes down of its term, for whoever leads next.

    Attributes:
        epoch: of the term.
        holder: host and process; empty: not known.
        address: where clients and agents reached it; empty: not known.
        ttl_s: of its lease; 0 without one.
        seen_s: newest sign that it led, Unix seconds by its own clock; 0: there is none.
    """

    epoch: int
    holder: str = ""
    address: str = ""
    ttl_s: float = 0.0
    seen_s: float = 0.0

    def __str__(self) -> str:
        if not self.holder:
            return f"the leader of epoch {self.epoch}"
        return f"{self.holder}{f' at {self.address}' if self.address else ''} (epoch {self.epoch})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """A term as it began.

    Attributes:
        now: who leads.
        former: who led before; None: nobody ever did.
        since_s: when it began to act on jobs, Unix seconds.
        vacant_since_s: newest sign of the former leader: at most since then nobody led; 0: not known.
        orphan_timeout_s: agents end their workers after so long without a leader.
    """

    now: TermRecord
    former: TermRecord | None
    since_s: float
    vacant_since_s: float
    orphan_timeout_s: float

    @classmethod
    def begun(
        cls,
        now: TermRecord,
        former: TermRecord | None,
        *,
        since_s: float,
        last_write_s: float,
        orphan_timeout_s: float,
    ) -> Term:
        """A term that begins at ``since_s``; ``last_write_s`` is the newest time that anybody wrote down before."""
        seen_s = max(former.seen_s, last_write_s) if former is not None else 0.0
        return cls(
            now=now,
            former=former,
            since_s=since_s,
            vacant_since_s=min(seen_s, since_s),
            orphan_timeout_s=orphan_timeout_s,
        )


def noted(before: JobState, result: Reconciliation, term: Term, now_s: float) -> Reconciliation:
    """The first durable change of a job in a term says first of all who leads now; all others are left as they are.

    That it was said is part of the same change: the job's epoch. So it is never said twice, nor does it cost a write.

    Args:
        before: the job as it is stored.
        result: what was decided about it, and is to be stored.
        term: that of the leader who decided.
        now_s: Unix seconds.
    """
    if not result.durable or before.phase in TERMINAL or before.epoch in (0, term.now.epoch):
        return result
    state = result.state
    if state.epoch != term.now.epoch:
        state = replace(state, epoch=term.now.epoch, epoch_since_s=now_s)
    return replace(result, state=state, events=(_event(before, term), *result.events))


def _event(job: JobState, term: Term) -> EventDraft:
    fields = {"leader": term.now.holder, "address": term.now.address, "epoch": str(term.now.epoch)}
    parts = [f"{term.now} leads now"]
    if term.former is not None:
        fields |= {"former_leader": term.former.holder, "former_address": term.former.address}
        fields["former_epoch"] = str(term.former.epoch)
        parts = [f"{term.now} leads now, after {term.former}"]
    vacant_s = term.since_s - term.vacant_since_s
    if term.vacant_since_s:
        fields |= {"vacant_since_s": f"{term.vacant_since_s:.3f}", "vacant_s": f"{vacant_s:.3f}"}
        parts.append(f"nobody led for at most {format_duration(vacant_s)}")
    if any(slot.bound for island in job.islands for slot in island.slots):
        parts.append(_workers(term, vacant_s))
    message = "; ".join(parts)
    known = {key: value for key, value in fields.items() if value}
    return EventDraft(type=LEADER_CHANGED, reason="NewTerm", message=message, fields=known)


def _workers(term: Term, vacant_s: float) -> str:
    """What became of the workers meanwhile, as far as anybody can know before the agents have reported."""
    limit = format_duration(term.orphan_timeout_s)
    if term.vacant_since_s and vacant_s > term.orphan_timeout_s:
        return f"agents save and end their workers after {limit} without a leader"
    return "workers go on without a leader"
