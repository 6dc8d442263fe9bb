"""The check of the state store: a controller answers out of its memory, also when nothing can be written. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from trainctl.cli.doctor.check_machine import NOTHING_BYTES
from trainctl.cli.doctor.facts import Facts, Store
from trainctl.cli.doctor.finding import Finding, fail, ok, warn
from trainctl.core.units import format_bytes, format_count, format_duration

SLOW_S = 1.0
FULL = 0.8
"""Part of its room from which on no new jobs are taken in."""
_ABOUT_STORES = "STORE_"
_NO_SPACE = "NOSPACE"
_MEANWHILE = "jobs train on meanwhile"


def check_store(facts: Facts) -> Iterator[Finding]:
    """Whether it takes writes, how full it is, and whether what was written is known to be there."""
    controller = facts.controller
    if controller.cause.startswith(_ABOUT_STORES):
        yield fail("store", f"no controller can lead with it as it is ({controller.cause})", controller.remedy)
    elif controller.store is not None:
        yield _judged(controller.store)


def _judged(store: Store) -> Finding:
    text = "; ".join([_taking(store), *_known(store)])
    if store.error:
        return fail("store", text, f"{store.remedy or _what_to_do(store)}; {_MEANWHILE}")
    if store.alarms:
        return fail("store", text, f"etcdctl alarm list and etcdctl endpoint status tell more; {_MEANWHILE}")
    if store.failed or store.jobs_in_doubt:
        return warn("store", text, "the controller tries until it knows; if this stays, look after the store")
    if _is_full(store):
        return warn("store", text, _make_room(store))
    if store.disk_free_bytes is not None and store.disk_free_bytes < NOTHING_BYTES:
        return warn("store", text, "make room on that disk: when it is full no job can be changed any more")
    if store.flaw:
        return warn("store", text, store.flaw)
    if store.took_s > SLOW_S:
        return warn("store", text, "is its disk slow or its machine overloaded? every change of a job waits for it")
    return ok("store", text)


def _taking(store: Store) -> str:
    if store.error:
        return f"{store.where} takes no writes: {store.error}"
    return f"{store.where} takes writes ({_took(store.took_s)})"


def _known(store: Store) -> Iterator[str]:
    """What there is to say beside that."""
    if store.alarms:
        yield f"it says {', '.join(store.alarms)}"
    if store.size_bytes:
        yield f"it occupies {format_bytes(store.size_bytes)}{_room(store)}"
    if _NO_SPACE in store.alarms and store.limit_bytes and not _is_full(store):
        yield "so it may occupy less than that: name its quota with the option quota of the store's address"
    if store.confirmed_age_s is not None:
        yield f"the last change was confirmed {format_duration(store.confirmed_age_s)} ago, in " + _took(
            store.confirmed_took_s
        )
    if store.failed and store.failed != store.error:
        yield f"the newest one was not, {format_duration(store.failed_age_s)} ago: {store.failed}"
    if store.jobs_in_doubt:
        yield f"of {format_count(store.jobs_in_doubt, 'job')} it is not known whether the last change took effect"


def _room(store: Store) -> str:
    """Whichever ends first: what it may occupy, or its disk."""
    if store.disk_free_bytes is not None and store.size_bytes + store.disk_free_bytes < (store.limit_bytes or 2**63):
        return f", {format_bytes(store.disk_free_bytes)} are free on its disk"
    return f" of {format_bytes(store.limit_bytes)}" if store.limit_bytes else ""


def _is_full(store: Store) -> bool:
    return bool(store.limit_bytes) and store.size_bytes > FULL * store.limit_bytes


def _make_room(store: Store) -> str:
    if not store.where.startswith("etcd:"):
        return "delete old jobs (trainctl delete)"
    return (
        "new jobs are refused: delete old ones (trainctl delete), then defragment etcd (etcdctl defrag), or raise its "
        "quota and the option quota of the store's address"
    )


def _what_to_do(store: Store) -> str:
    if store.where.startswith("etcd:"):
        return "does a majority of its members run and answer? etcdctl endpoint health and endpoint status tell"
    return "look at the disk that it lies on, and at the controller's log"


def _took(seconds: float) -> str:
    return f"{1000 * seconds:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"
