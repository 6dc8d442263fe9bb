"""What lies under a checkpoint URI: which attempts are complete, and which is the newest. Needs no torch.

The root manifest alone makes an attempt complete. Among complete ones the order is (lineage, epoch, step, created): a
writer of a stale lineage or an old leader can wake up and complete an attempt, but never win. Who has the controller's
word for what is current (its fenced transaction) does not need this order.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from trainctl.checkpoint.kept.damage import read_mark
from trainctl.checkpoint.kept.others import steps_in
from trainctl.checkpoint.manifest.codec import TornManifestError
from trainctl.checkpoint.manifest.names import ROOT_MANIFEST, artifact_name, is_attempt, step_folder, step_of
from trainctl.checkpoint.manifest.reading import check_files, read_artifact, read_root
from trainctl.checkpoint.manifest.records import RootManifest
from trainctl.checkpoint.storage.absence import why_nothing
from trainctl.checkpoint.storage.errors import storage_errors
from trainctl.checkpoint.storage.opening import open_storage
from trainctl.checkpoint.storage.port import Storage
from trainctl.core.errors import CheckpointError, DamagedCheckpointError
from trainctl.core.records.generation import CheckpointRef


@dataclass(frozen=True, slots=True)
class CheckpointInfo:
    """A checkpoint: how to refer to it, what its manifest says, and why it cannot be used, if it cannot.

    Attributes:
        ref: with which others name it.
        manifest: of it.
        problem: why nobody takes it for the newest; empty if it is whole, as far as can be seen without reading it.
        mark: what somebody who read it found damaged (``damage``); empty if nobody did.
    """

    ref: CheckpointRef
    manifest: RootManifest
    problem: str = ""
    mark: str = ""

    @property
    def rank(self) -> tuple[int, int, int, str, str]:
        """Sort key: the newest has the greatest. Of two of one step, such as a script saves, the later one."""
        m = self.manifest
        return (m.lineage, m.epoch, m.step, m.created, m.attempt)


@dataclass(frozen=True, slots=True)
class Survey:
    """All attempts under a URI.

    Attributes:
        checkpoints: complete ones that nobody found damaged, newest first.
        damaged: those with a root manifest that lack files, or were found damaged by whoever loaded them, newest first.
        unreadable: step and trouble of those whose root manifest cannot be read.
        interrupted: step and attempt id of those without root manifest: being written or removed, or left by a crash.
        empty: steps whose folder has nothing in it.
        torn: step and attempt id of those unreadable ones whose root manifest no version can read.
    """

    checkpoints: tuple[CheckpointInfo, ...]
    damaged: tuple[CheckpointInfo, ...]
    unreadable: tuple[tuple[int, str], ...]
    interrupted: tuple[tuple[int, str], ...]
    empty: tuple[int, ...] = ()
    torn: tuple[tuple[int, str], ...] = ()

    @property
    def unusable(self) -> tuple[str, ...]:
        """Why attempts with a root manifest cannot be used."""
        return (*(info.problem for info in self.damaged), *(problem for _, problem in self.unreadable))

    def of_step(self, step: int) -> Survey:
        """Only the attempts of one step."""
        return Survey(
            checkpoints=tuple(info for info in self.checkpoints if info.ref.step == step),
            damaged=tuple(info for info in self.damaged if info.ref.step == step),
            unreadable=tuple(one for one in self.unreadable if one[0] == step),
            interrupted=tuple(one for one in self.interrupted if one[0] == step),
            empty=tuple(one for one in self.empty if one == step),
            torn=tuple(one for one in self.torn if one[0] == step),
        )


def survey(uri: str) -> Survey:
    """Looks at every attempt under ``uri``; a folder that does not exist holds none.

    Raises:
        CheckpointError: the folder holds something, but no checkpoints of ours.
    """
    with storage_errors(f"looking for checkpoints in {uri}"):
        return _survey(open_storage(uri))


def newest(uri: str, *, job: str = "") -> CheckpointRef | None:
    """The newest complete checkpoint under ``uri``; None if there is none.

    Args:
        uri: the folder that jobs save to.
        job: only consider this job's; without it, a job that went on from another one's checkpoint comes after it.

    Raises:
        CheckpointError: the folder is foreign, or holds checkpoints of unrelated jobs.
    """
    info = newest_of(survey(uri), uri, job)
    return info.ref if info is not None else None


def newest_of(found: Survey, uri: str, job: str = "") -> CheckpointInfo | None:
    """As ``newest``, of what is known to lie there."""
    leaders: dict[str, CheckpointInfo] = {}
    for info in found.checkpoints:
        if job in ("", info.manifest.job):
            leaders.setdefault(info.manifest.job, info)
    continued = {ancestor for info in found.checkpoints for ancestor in info.manifest.ancestors}
    last = [info for info in leaders.values() if job or info.manifest.job not in continued]
    if len(last) > 1:
        unrelated = "holds checkpoints of jobs that do not continue each other, so which one is the newest is ambiguous"
        raise ambiguous(f"{uri} {unrelated}", last)
    return last[0] if last else None


def ambiguous(message: str, infos: Iterable[CheckpointInfo]) -> CheckpointError:
    """Any of several may be meant: they are listed below the message."""
    listed = "\n".join(f"  job {info.manifest.job}, step {info.ref.step}: {info.ref.uri}" for info in infos)
    return CheckpointError(f"{message}:\n{listed}", hint="name one of these folders")


def passed_over(ref: CheckpointRef) -> tuple[str, ...]:
    """What is wrong with the newer checkpoints that lie beside ``ref`` and were not taken.

    One that lost its root manifest is not among them: its files are those of a save that was killed before its last
    act, which is no news.

    Raises:
        CheckpointError: the storage cannot be read.
    """
    found = survey(ref.uri.rsplit("/", 2)[0])
    # By now it may be marked as damaged, or gone: older ones are none the newer for that.
    taken = next((info for info in (*found.checkpoints, *found.damaged) if info.ref.attempt == ref.attempt), None)
    newer = (
        info.problem
        for info in found.damaged
        if (info.rank > taken.rank if taken else (info.ref.lineage, info.ref.step) > (ref.lineage, ref.step))
    )
    return (*newer, *(problem for step, problem in found.unreadable if step > ref.step))


def older(ref: CheckpointRef) -> tuple[CheckpointRef, ...]:
    """The checkpoints that ``ref`` descends from and that lie beside it, newest first: what to go back to without it.

    A gap in the chain of parents is bridged inside a lineage, which is one chain. Where it begins nothing is guessed:
    what an older lineage saved may have been rolled back.

    Raises:
        CheckpointError: the storage cannot be read.
    """
    found = survey(ref.uri.rsplit("/", 2)[0])
    known = {info.ref.attempt: info for info in (*found.checkpoints, *found.damaged)}
    chain: list[CheckpointInfo] = []
    here = known.get(ref.attempt)
    while here is not None and here not in chain:
        chain.append(here)
        here = _before(here, known)
    return tuple(info.ref for info in chain[1:] if info in found.checkpoints)


def _before(info: CheckpointInfo, known: Mapping[str, CheckpointInfo]) -> CheckpointInfo | None:
    parent = info.manifest.parent
    if parent is not None and parent.attempt in known:
        return known[parent.attempt]
    same = [
        other
        for other in known.values()
        if (other.manifest.job, other.ref.lineage) == (info.manifest.job, info.ref.lineage)
        and other.ref.step < info.ref.step
    ]
    return max(same, key=lambda other: other.rank, default=None)


def is_root_of(uri: str, ref: CheckpointRef) -> bool:
    """Whether ``uri`` is the folder of all checkpoints, of which ``ref`` is one, and so names none of them itself."""
    return open_storage(uri).uri == ref.uri.rsplit("/", 2)[0]


def resolve(uri: str) -> CheckpointRef:
    """The checkpoint that a person means by ``uri``: an attempt's folder, a step's folder, or a folder of checkpoints.

    Raises:
        CheckpointError: there is no usable checkpoint, or it is ambiguous which one is meant.
    """
    return inspect(uri).ref


def inspect(uri: str) -> CheckpointInfo:
    """The complete checkpoint that ``resolve`` finds, with its manifest.

    Raises:
        CheckpointError: as ``resolve``.
    """
    with storage_errors(f"reading the checkpoint {uri}"):
        storage = open_storage(uri)
        if is_one(storage):
            return _info(storage)
        base, step = step_in(storage)
        if step is not None:
            return _of_step(base, step)
        found = _survey(storage)
        info = newest_of(found, uri)
        if info is None:
            raise _none_in(uri, found, storage)
        return info


def is_one(storage: Storage) -> bool:
    """Whether a folder is that of one attempt, by its name or, wherever it was copied to, by its root manifest."""
    return is_attempt(storage.uri.rpartition("/")[2]) or storage.size(ROOT_MANIFEST) is not None


def step_in(storage: Storage) -> tuple[str, int | None]:
    """The folder above, and the step whose folder this one is; None if it is of none."""
    base, _, name = storage.uri.rpartition("/")
    return base, step_of(name)


def artifact(ref: CheckpointRef, name: str, *, max_bytes: int) -> bytes | None:
    """A file kept beside the tensors of a checkpoint; None if there is none of that name.

    Raises:
        CheckpointError: the checkpoint is missing or corrupt, or the file larger than ``max_bytes``.
    """
    with storage_errors(f"reading the checkpoint {ref.uri}"):
        storage = open_storage(ref.uri)
        root, _ = read_root(storage, expected_sha256=ref.manifest_sha256)
        file = next((file for file in root.artifacts if artifact_name(file.path) == name), None)
        if file is None:
            return None
        size = storage.size(file.path) or 0
        if size > max_bytes:
            raise CheckpointError(f"{ref.uri}/{file.path}: expected at most {max_bytes} bytes, found {size}")
        return read_artifact(storage, file)


def _survey(storage: Storage) -> Survey:
    complete: list[CheckpointInfo] = []
    damaged: list[CheckpointInfo] = []
    unreadable: list[tuple[int, str]] = []
    interrupted: list[tuple[int, str]] = []
    empty: list[int] = []
    torn: list[tuple[int, str]] = []
    for name in steps_in(storage):
        inside = storage.list(name)
        if not inside:
            empty.append(step_of(name) or 0)
        for attempt in filter(is_attempt, inside):
            folder = f"{name}/{attempt}"
            if storage.size(f"{folder}/{ROOT_MANIFEST}") is None:
                interrupted.append((step_of(name) or 0, attempt))
                continue
            info, is_torn = None, False
            try:
                info = looked_at(storage, folder)
                problem = info.problem
            except CheckpointError as error:
                problem, is_torn = str(error), isinstance(error, TornManifestError)
            if problem and storage.size(f"{folder}/{ROOT_MANIFEST}") is None:  # it is being removed
                interrupted.append((step_of(name) or 0, attempt))
            elif info is not None:
                (damaged if problem else complete).append(info)
            else:
                unreadable.append((step_of(name) or 0, problem))
                if is_torn:
                    torn.append((step_of(name) or 0, attempt))
    for found in (complete, damaged):
        found.sort(key=lambda info: info.rank, reverse=True)
    return Survey(tuple(complete), tuple(damaged), tuple(unreadable), tuple(interrupted), tuple(empty), tuple(torn))


def looked_at(storage: Storage, folder: str = "") -> CheckpointInfo:
    """The attempt in ``folder``, which has a root manifest, with what is wrong with it.

    Raises:
        CheckpointError: its root manifest cannot be read.
    """
    info = _described(storage, folder)
    mark = read_mark(storage, folder)
    problem = f"{info.ref.uri} was found damaged: {mark}" if mark else _incomplete(storage, info.manifest, folder)
    return replace(info, problem=problem, mark=mark)


def _incomplete(storage: Storage, root: RootManifest, folder: str) -> str:
    try:
        check_files(storage, root, folder)
    except CheckpointError as error:
        return str(error)
    return ""


def _info(storage: Storage, folder: str = "") -> CheckpointInfo:
    info = _described(storage, folder)
    check_files(storage, info.manifest, folder)
    return info


def _described(storage: Storage, folder: str = "") -> CheckpointInfo:
    root, digest = read_root(storage, folder)
    uri = f"{storage.uri}/{folder}".rstrip("/")
    named = uri.rpartition("/")[2]
    if is_attempt(named) and named != root.attempt:
        raise DamagedCheckpointError(
            f"{uri}/{ROOT_MANIFEST} is another save's: expected that of attempt {named}, found that of attempt "
            f"{root.attempt}, step {root.step}",
            hint="put the file back that was there, or take another checkpoint",
        )
    ref = CheckpointRef(
        uri=uri,
        step=root.step,
        lineage=root.lineage,
        attempt=root.attempt,
        manifest_sha256=digest,
    )
    return CheckpointInfo(ref, root)


def _of_step(base: str, step: int) -> CheckpointInfo:
    found = survey(base).of_step(step)
    if not found.checkpoints:
        folder = f"{base}/{step_folder(step)}"
        raise _none_in(folder, found, open_storage(folder))
    if len({info.manifest.job for info in found.checkpoints}) > 1:
        raise ambiguous(f"step {step} was saved by several jobs", found.checkpoints)
    return found.checkpoints[0]


def _none_in(uri: str, found: Survey, storage: Storage) -> CheckpointError:
    notes = [
        *found.unusable,
        *(f"step {step}, attempt {attempt} was interrupted" for step, attempt in found.interrupted),
    ]
    why = "" if storage.list("") else f": {why_nothing(storage)}"
    return CheckpointError(
        "\n".join([f"{uri} holds no complete checkpoint{why}", *notes]),
        hint="check the path, or name another checkpoint",
    )
