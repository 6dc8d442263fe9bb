"""What lies in a folder that a person names: checkpoints, one or many, whole or not. Asks no controller. No torch."""

from __future__ import annotations

from dataclasses import dataclass, replace

from trainctl.checkpoint.kept.catalog import (
    CheckpointInfo,
    Survey,
    ambiguous,
    is_one,
    looked_at,
    newest_of,
    step_in,
    survey,
)
from trainctl.checkpoint.kept.pins import is_pinned
from trainctl.checkpoint.manifest.names import ROOT_MANIFEST, step_of
from trainctl.checkpoint.storage.errors import storage_errors
from trainctl.checkpoint.storage.opening import open_storage
from trainctl.checkpoint.storage.port import Storage
from trainctl.core.errors import CheckpointError, DamagedCheckpointError, NotFoundError

_WHICH = "which one is meant is ambiguous"


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What lies in a folder.

    Attributes:
        uri: of the folder.
        single: it is that of one step, or of one checkpoint: no step has to be said.
        survey: of what lies in it.
        pinned: URIs of checkpoints that somebody wants kept.
    """

    uri: str
    single: bool
    survey: Survey
    pinned: frozenset[str]

    @property
    def infos(self) -> tuple[CheckpointInfo, ...]:
        """All with a manifest that can be read, the oldest first."""
        everything = (*self.survey.checkpoints, *self.survey.damaged)
        return tuple(sorted(everything, key=lambda info: info.rank))


def look(uri: str) -> Found:
    """Looks at the folder of an attempt, of a step, or of many checkpoints; one that does not exist holds none.

    Raises:
        CheckpointError: the folder holds something else, or the storage refused.
        StorageRefusedError: the URI is misspelt, or its driver is not installed.
    """
    with storage_errors(f"looking for checkpoints in {uri}"):
        storage = open_storage(uri)
        attempt = is_one(storage)
        base, step = step_in(storage)
        if attempt:
            found = _one(storage)
        elif step is not None:
            found = survey(base).of_step(step)
        else:
            found = survey(uri)
        infos = (*found.checkpoints, *found.damaged)
        pinned = frozenset(info.ref.uri for info in infos if is_pinned(info.ref))
    return Found(uri=storage.uri, single=attempt or step is not None, survey=found, pinned=pinned)


def _one(storage: Storage) -> Survey:
    """An attempt, wherever it was copied to."""
    above, _, name = storage.uri.rpartition("/")
    step = step_of(above.rpartition("/")[2]) or 0
    if storage.size(ROOT_MANIFEST) is None:
        interrupted = ((step, name),) if storage.list("") else ()
        return Survey((), (), (), interrupted)
    try:
        info = looked_at(storage)
    except DamagedCheckpointError as error:
        return Survey((), (), ((step, str(error)),), ())
    return Survey((), (info,), (), ()) if info.problem else Survey((info,), (), (), ())


def choose(found: Found, step: int | None) -> CheckpointInfo:
    """The checkpoint to read: of a step, or the newest; a damaged one only where it is named, and no whole one is.

    Raises:
        CheckpointError: there is none, but something that was to be one; or several jobs have one.
        NotFoundError: there is none.
    """
    whole = [info for info in found.survey.checkpoints if step in (None, info.ref.step)]
    if len({info.manifest.job for info in whole}) > 1 and (step is not None or found.single):
        raise ambiguous(_WHICH, whole)
    if whole:
        chosen = newest_of(replace(found.survey, checkpoints=tuple(whole)), found.uri)
        return chosen or whole[0]
    damaged = [info for info in found.survey.damaged if step in (None, info.ref.step)]
    if damaged and (step is not None or found.single):
        return damaged[0]
    raise _none(found, step)


def passed_over(found: Found, taken: CheckpointInfo) -> tuple[tuple[int, str], ...]:
    """Step and trouble of those newer than the one that was taken for the newest."""
    survey = found.survey
    newer = ((info.ref.step, info.problem) for info in survey.damaged if info.rank > taken.rank)
    return (*newer, *(one for one in survey.unreadable if one[0] > taken.ref.step))


def only(found: Found, step: int | None) -> CheckpointInfo:
    """The one checkpoint of a step, whole or not, or that the folder itself names: what is changed is not guessed.

    Raises:
        CheckpointError: there are several.
        NotFoundError: there is none.
    """
    infos = [info for info in found.infos if step in (None, info.ref.step)]
    if len(infos) > 1:
        raise ambiguous(_WHICH, infos)
    if not infos:
        raise _none(found, step)
    return infos[0]


def _none(found: Found, step: int | None) -> CheckpointError | NotFoundError:
    """Names what there is instead."""
    survey = found.survey
    notes = [
        *(info.problem for info in survey.damaged if step in (None, info.ref.step)),
        *(problem for at, problem in survey.unreadable if step in (None, at)),
        *(
            f"step {at}, attempt {attempt}: it is being written, or was interrupted"
            for at, attempt in survey.interrupted
            if step in (None, at)
        ),
    ]
    which = "checkpoint" if step is None else f"checkpoint of step {step}"
    if notes:
        hint = "restore its files from a copy, or take another: trainctl checkpoints list " + found.uri
        return CheckpointError("\n".join([f"{found.uri} holds no {which} that is whole", *notes]), hint=hint)
    steps = ", ".join(dict.fromkeys(str(info.ref.step) for info in found.infos))
    has = f"; it has {steps}" if steps else ""
    return NotFoundError(f"{found.uri} holds no {which}{has}", hint="check the path: trainctl checkpoints list PATH")
