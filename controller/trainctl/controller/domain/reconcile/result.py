"""What reconcile takes from, and gives back to, the shell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from trainctl.controller.domain.events import EventDraft
from trainctl.controller.domain.job_state import JobState


class IdSource(Protocol):
    """Fresh identities, handed in by the shell so that the core stays deterministic."""

    def incarnation(self) -> int:
        """A number greater than every one given before, in this and in earlier controller lives."""
        ...

    def nonce(self) -> str:
        """A text never given before."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciliation:
    """The outcome of one pass.

    Attributes:
        state: the job's new truth; equal to the old one when nothing changed.
        events: to be written in the same transaction as ``state``.
        wake_at_s: when to look again even if nothing happens, on the axis of ``now_s``; None: no deadline is running.
        durable: False when only telemetry changed: keep it in memory, the next durable change persists it.
    """

    state: JobState
    events: tuple[EventDraft, ...] = ()
    wake_at_s: float | None = None
    durable: bool = True
