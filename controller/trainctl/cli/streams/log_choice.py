"""Whether there is what ``--rank``, ``--slot`` and ``--attempt`` name: nobody shall wait for what never comes."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from trainctl.cli.connection.client import Client
from trainctl.cli.streams.log_reader import Life, LogReader
from trainctl.core.errors import NotFoundError
from trainctl.protos.v1.job_pb2 import Job

_SHOWN = 20
"""Numbers in one message; of more, the newest are the likelier ones."""


def check_choice(client: Client, job: Job, *, slots: Collection[int], incarnation: int, follow: bool) -> None:
    """Sees that the worker slots, and the life of a worker in them, are or were there.

    Args:
        client: asked for the logs that there are.
        job: whose they are.
        slots: those that are asked for; empty for all.
        incarnation: the life that is asked for; 0 for all.
        follow: a slot that has no worker yet will do: it may get one.

    Raises:
        NotFoundError: names what there is instead.
    """
    chosen = _lives(client, job, LogReader(uid=job.uid, slots=tuple(slots), incarnation=incarnation, tail=1))
    if incarnation and any(life == incarnation and (not slots or slot in slots) for slot, life in chosen):
        return
    lives = chosen | _lives(client, job, LogReader(uid=job.uid, tail=1))
    spec = job.effective_spec.spec
    to_come = range(spec.nodes.max * spec.resources.workers_per_node) if follow else ()
    check_known(job, "worker slot", slots, {slot for slot, _ in lives}.union(to_come))
    if incarnation:
        of = f" in slot {', '.join(map(str, sorted(slots)))}" if slots else ""
        there = {life for slot, life in lives if life and (not slots or slot in slots)}
        check_known(job, "attempt", (incarnation,), there, of=of)


def check_known(job: Job, what: str, wanted: Iterable[int], known: Collection[int], *, of: str = "") -> None:
    """Sees that a job has everything that is wanted.

    Raises:
        NotFoundError: it has not; names what it has.
    """
    missing = [str(number) for number in wanted if number not in known]
    if missing:
        name = job.spec.metadata.name
        there = [str(number) for number in sorted(known)]
        has = ("..., " if len(there) > _SHOWN else "") + ", ".join(there[-_SHOWN:])
        some = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
        raise NotFoundError(
            f"job {name} has no {what} {some}{of}; it has {has or 'none at the moment'}",
            hint=f"`trainctl describe {name}` shows its workers",
        )


def _lives(client: Client, job: Job, reader: LogReader) -> set[Life]:
    """Every worker life that is there now, and those that the reader finds logs of."""
    lives = {(worker.slot, worker.incarnation) for island in job.status.islands for worker in island.workers}
    # What is said about a log that is away belongs to no life.
    lives.update((chunk.slot, chunk.incarnation) for chunk in reader.read(client) if chunk.incarnation)
    return lives | reader.positions.keys()
