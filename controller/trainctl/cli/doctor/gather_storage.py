"""Tries the places that checkpoints are saved to: each in a process of its own, since it may hang; all at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from trainctl.cli.doctor.facts import Storage
from trainctl.cli.doctor.gather_processes import ask
from trainctl.cli.doctor.job_env import NOTHING, JobEnv
from trainctl.core.records.spec import TrainJob

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
        job: what a job adds to the environment in which it is tried.
    """

    field: str
    uri: str
    needed_bytes: int = 0
    write: bool = True
    job: JobEnv = NOTHING


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


def places_of_file(job: TrainJob, env: JobEnv) -> tuple[Place, ...]:
    """What a job that is not submitted yet would write to and read from; its own folder is the installation's."""
    spec = job.spec
    written = {"spec.checkpoint.uri": spec.checkpoint.uri, "spec.results.uri": spec.results.uri}
    found = [Place(field=field, uri=uri, job=env) for field, uri in written.items() if uri]
    if not is_here(spec.train.data.uri):
        found.append(Place(field="spec.train.data.uri", uri=spec.train.data.uri, write=False, job=env))
    return tuple(found)


def try_all(places: Sequence[Place], env: Mapping[str, str]) -> tuple[Storage, ...]:
    """What was found in each."""
    if not places:
        return ()
    with ThreadPoolExecutor(len(places)) as pool:
        return tuple(pool.map(partial(_try, env=env), places))


def _try(place: Place, env: Mapping[str, str]) -> Storage:
    job = place.job
    if job.error and not is_here(place.uri):
        return Storage(field=place.field, uri=place.uri, error=job.error, hint=job.hint)
    arguments = (place.uri, "--write") if place.write else (place.uri,)
    own_env = {**env, **job.variables}
    found = ask("trainctl.checkpoint.storage.probe", arguments, own_env, WRITE_S if place.write else LIST_S)
    return Storage(
        field=place.field,
        uri=place.uri,
        error=job.hidden(str(found.get("error", ""))),
        hint=job.hidden(str(found.get("hint", ""))),
        notes=tuple(job.hidden(note) for note in found.get("notes", ())),
        took_s=float(found["tookS"]) if place.write and "tookS" in found else None,
        free_bytes=found.get("freeBytes"),
        needed_bytes=place.needed_bytes,
    )
