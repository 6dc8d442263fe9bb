"""What is saved, loaded or copied right now, as people read it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from trainctl.cli.terminal.times import rough
from trainctl.core.records.part import TransferKind
from trainctl.core.units import format_bytes
from trainctl.protos.v1.job_pb2 import JobStatus, TransferStatus, WorkerStatus

_DOING: Mapping[str, str] = {
    TransferKind.SAVE.value: "saving",
    TransferKind.LOAD.value: "loading",
    TransferKind.COPY.value: "copying",
}


def doing(kind: str) -> str:
    """``saving``; a kind that only another version knows as it calls it."""
    return _DOING.get(kind, kind)


def amount(transfer: TransferStatus) -> str:
    """``43 % of 12.0 GiB, 31s left``."""
    if not transfer.total_bytes:
        return f"begun {rough(transfer.age_s)} ago"
    size = format_bytes(transfer.total_bytes)
    if transfer.done_bytes >= transfer.total_bytes:
        return f"all of {size}, being completed"
    left = f", {rough(max(transfer.left_s, 1.0))} left" if transfer.HasField("left_s") else ""
    return f"{percent(transfer.done_bytes, transfer.total_bytes)} of {size}{left}"


def percent(done_bytes: int, total_bytes: int) -> str:
    """``43 %``; never 100 before all is done."""
    return f"{min(99, 100 * done_bytes // total_bytes)} %" if total_bytes and done_bytes < total_bytes else "100 %"


def sentence(transfer: TransferStatus) -> str:
    """``saving step 1200: 43 % of 12.0 GiB, 31s left``."""
    return f"{doing(transfer.kind)} step {transfer.step}: {amount(transfer)}"


def sentences(status: JobStatus) -> list[str]:
    """One for each that goes on."""
    return [sentence(transfer) for transfer in status.transfers]


def cell(transfers: Sequence[TransferStatus]) -> str:
    """``saving 1200 43 %``; ``-`` where nothing goes on."""
    return ", ".join(f"{doing(t.kind)} {t.step} {percent(t.done_bytes, t.total_bytes)}" for t in transfers) or "-"


def of_worker(worker: WorkerStatus, shown: Sequence[TransferStatus]) -> str:
    """What a worker does, and how far it is with its part of what is shown of the job: ``compute, saving 43 %``."""
    own = worker.transfer
    phase = worker.phase or "-"
    if not worker.HasField("transfer") or not any((t.kind, t.step) == (own.kind, own.step) for t in shown):
        return phase
    return f"{phase}, {doing(own.kind)} {percent(own.done_bytes, own.total_bytes)}"
