"""Checks of the places that checkpoints are saved to. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from trainctl.cli.doctor.check_machine import space_finding
from trainctl.cli.doctor.facts import Facts, Storage
from trainctl.cli.doctor.finding import Finding, Status, fail, ok, warn
from trainctl.core.units import format_duration


def check_storages(facts: Facts) -> Iterator[Finding]:
    """Whether a small file can be written, read back, listed and removed, and whether there is room for more."""
    job = facts.job.storages if facts.job is not None else ()
    for storage in (*job, *facts.storages):
        yield _judged(storage)


def _judged(storage: Storage) -> Finding:
    check = f"storage {storage.field}"
    elsewhere = f"choose another place with {storage.field}" if storage.field.startswith("spec.") else ""
    if storage.error:
        remedy = storage.hint or elsewhere or "see that this user can reach and write it, or name another place"
        return fail(check, f"{storage.uri} cannot be used from here: {storage.error}", remedy)
    done = _done(storage)
    if storage.notes:
        remedy = "it can be used; a storage without this weakness is safer"
        return warn(check, f"{done}, but: {'; '.join(storage.notes)}", remedy)
    if storage.free_bytes is None:
        return ok(check, done)
    room = space_finding(
        check, storage.uri, storage.free_bytes, storage.needed_bytes, elsewhere or "save somewhere else"
    )
    return ok(check, f"{done}; {room.message}") if room.status is Status.OK and storage.took_s is not None else room


def _done(storage: Storage) -> str:
    if storage.took_s is None:
        return f"{storage.uri} can be reached"
    return f"{storage.uri}: a file was written, read back, listed and removed in {format_duration(storage.took_s)}"
