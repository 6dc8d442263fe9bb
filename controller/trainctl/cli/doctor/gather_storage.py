"""Tries the places that checkpoints are saved to: each in a process of its own, since it may hang; all at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from trainctl.cli.doctor.facts import Storage
from trainctl.cli.doctor.gather_processes import ask

WRITE_S = 40.0
"""Six requests, of which none takes longer than 6 s unless it fails."""
LIST_S = 20.0
MOST = 4
"""Places of jobs that run; more take too long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A place to try.

    Attributes:
        field: what names it, for people.
        uri: of the folder.
        needed_bytes: of one more checkpoint, 0 if not known.
        write: whether a small file is written there, or it is only listed.
    """

    field: str
    uri: str
    needed_bytes: int = 0
    write: bool = True


def is_here(uri: str) -> bool:
    """Whether it is a path, which means something on this machine only."""
    return "://" not in uri or uri.startswith("file://")


def places_of_jobs(uris: Iterable[tuple[str, str]], *, default: str, local: bool) -> tuple[Place, ...]:
    """Where jobs that run save to; where none does, the folder that a job's own would be in.

    Args:
        uris: name of each job that has not ended, and where it saves.
        default: that folder.
        local: the installation is of this machine, so its paths are.
    """
    found: dict[str, str] = {}
    for name, uri in uris:
        if uri and (local or not is_here(uri)):
            found.setdefault(uri, name)
    if not found:
        return (Place(field="of jobs", uri=default),) if local else ()
    return tuple(Place(field=f"of job {name}", uri=uri) for uri, name in list(found.items())[:MOST])


def try_all(places: Sequence[Place], env: Mapping[str, str]) -> tuple[Storage, ...]:
    """What was found in each."""
    if not places:
        return ()
    with ThreadPoolExecutor(len(places)) as pool:
        return tuple(pool.map(lambda place: _try(place, env), places))


def _try(place: Place, env: Mapping[str, str]) -> Storage:
    arguments = (place.uri, "--write") if place.write else (place.uri,)
    found = ask("trainctl.checkpoint.storage.probe", arguments, env, WRITE_S if place.write else LIST_S)
    return Storage(
        field=place.field,
        uri=place.uri,
        error=str(found.get("error", "")),
        hint=str(found.get("hint", "")),
        notes=tuple(found.get("notes", ())),
        took_s=float(found["tookS"]) if place.write and "tookS" in found else None,
        free_bytes=found.get("freeBytes"),
        needed_bytes=place.needed_bytes,
    )
