"""What a job's workers save, load or copy right now, put together. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from trainctl.controller.domain.job_state import JobState
from trainctl.controller.domain.view import ClusterView
from trainctl.core.records.part import Transfer, TransferKind
from trainctl.core.records.worker import WorkerPhase

SHOWN_AFTER_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class JobTransfer:
    """One save, load or copy, over all workers (message ``TransferStatus``).

    Attributes:
        kind: which of them.
        step: that the state is of.
        done_bytes: so far, of all workers.
        total_bytes: in all; a worker that has done its part still counts.
        left_s: until the slowest worker is done, at its pace so far; None while one has done nothing.
        workers: that take part.
        in_flight: saves on their way, this one included.
        age_s: seconds since it began.
    """

    kind: TransferKind
    step: int
    done_bytes: int
    total_bytes: int
    left_s: float | None
    workers: int
    in_flight: int
    age_s: float


def transfers_of(state: JobState, view: ClusterView) -> tuple[JobTransfer, ...]:
    """What goes on, by kind and step; nothing of workers that are gone or that nobody hears.

    Nor of a save that is committed: its workers learn that with their next vote, and a step may take long.
    """
    groups: dict[tuple[str, int], list[Transfer]] = {}
    committed = max((checkpoint.step for checkpoint in state.checkpoints), default=-1)
    for transfer in _seen(state, view):
        if transfer.kind is TransferKind.SAVE and transfer.step <= committed:
            continue
        groups.setdefault((transfer.kind.value, transfer.step), []).append(transfer)
    return tuple(_together(group) for _, group in sorted(groups.items()))


def shown_transfers(state: JobState, view: ClusterView) -> tuple[JobTransfer, ...]:
    """Those that take long enough for somebody to wonder."""
    return tuple(one for one in transfers_of(state, view) if one.age_s >= SHOWN_AFTER_S)


def saves_in_flight(state: JobState, view: ClusterView) -> int:
    """Saves that are begun and not over, however short they are."""
    return max((one.in_flight for one in transfers_of(state, view) if one.kind is TransferKind.SAVE), default=0)


def _seen(state: JobState, view: ClusterView) -> Iterator[Transfer]:
    for island in state.islands:
        for slot in island.slots:
            agent = view.agent(slot.agent_incarnation) if slot.bound else None
            if agent is None or not agent.connected or agent.process_exited:
                continue
            worker = agent.worker(state.uid, slot.index, slot.incarnation)
            if worker is None or worker.phase is WorkerPhase.EXITED or worker.progress.transfer is None:
                continue
            yield worker.progress.transfer


def _together(group: Sequence[Transfer]) -> JobTransfer:
    return JobTransfer(
        kind=group[0].kind,
        step=group[0].step,
        done_bytes=sum(one.done_bytes for one in group),
        total_bytes=sum(one.total_bytes for one in group),
        left_s=None if any(_left_s(one) is None for one in group) else max(_left_s(one) or 0.0 for one in group),
        workers=len(group),
        in_flight=max(one.in_flight for one in group),
        age_s=max(one.age_s for one in group),
    )


def _left_s(transfer: Transfer) -> float | None:
    left_bytes = transfer.total_bytes - transfer.done_bytes
    if left_bytes <= 0 and transfer.total_bytes:
        return 0.0
    return left_bytes * transfer.age_s / transfer.done_bytes if transfer.done_bytes else None
