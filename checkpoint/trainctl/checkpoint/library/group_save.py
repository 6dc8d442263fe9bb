"""One save by all ranks of a group: agreed on, written by each, and completed by rank 0 where every part is there."""

from __future__ import annotations

import contextlib
import itertools
import os
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trainctl.checkpoint.callbacks import nothing
from trainctl.checkpoint.engine import CheckpointWriter, attempt_id
from trainctl.checkpoint.kept.catalog import newest
from trainctl.checkpoint.kept.origin import LIBRARY
from trainctl.checkpoint.layout.key import StateVersion
from trainctl.checkpoint.layout.layout import rank_holder
from trainctl.checkpoint.library.holdings import Holdings, told
from trainctl.checkpoint.library.ranks import Ranks, failures
from trainctl.checkpoint.library.ranks import told as told_of
from trainctl.checkpoint.live.state import LocalState
from trainctl.checkpoint.manifest.names import STEPS
from trainctl.checkpoint.manifest.records import PartReport
from trainctl.checkpoint.save.attempts import Attempt
from trainctl.checkpoint.save.beside import encode_beside
from trainctl.checkpoint.save.dealing import Dealer
from trainctl.checkpoint.save.model_files import LAYOUTS
from trainctl.checkpoint.save.saving import EntryData, Portion
from trainctl.checkpoint.spans import spans
from trainctl.core.codec import from_wire, to_wire
from trainctl.core.errors import CheckpointError, TrainctlError, UsageError
from trainctl.core.records.generation import CheckpointRef
from trainctl.core.system.faults import FaultPlan

_LINEAGE, _EPOCH = 1, 1


def path_of(uri: str | os.PathLike[str]) -> str:
    """As text; what is neither stays as it is, for ``Target.problems`` to say so where all ranks hear it."""
    return os.fspath(uri) if isinstance(uri, os.PathLike) else uri


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where the checkpoints of a group go.

    Attributes:
        uri: folder for checkpoints, or anything that fsspec opens.
        keep: remove older ones but so many; 0: keep all.
        layout: ``chunked`` or ``hf``.
    """

    uri: str
    keep: int
    layout: str

    def problems(self) -> list[str]:
        """What nobody can save to."""
        wrong: list[str] = []
        # Users pass anything, whatever the types say.
        if not isinstance(self.uri, str) or not self.uri:  # pyright: ignore[reportUnnecessaryIsInstance]
            wrong.append(f"uri: expected a folder, found {self.uri!r}")
        if type(self.keep) is not int or self.keep < 0:
            wrong.append(f"keep: expected how many stay, or 0 for all, found {self.keep!r}")
        if self.layout not in LAYOUTS:
            wrong.append(f"layout: expected {' or '.join(LAYOUTS)}, found {self.layout!r}")
        return wrong

    def check(self, step: object) -> None:
        """Sees that what is saved there as ``step`` can be found again.

        Raises:
            UsageError: lists all that is wrong.
        """
        wrong = self.problems()
        if type(step) is not int or not 0 <= step < STEPS:
            wrong.insert(0, f"step: expected a whole number from 0 to {STEPS - 1}, found {step!r}")
        if wrong:
            raise UsageError("\n".join(wrong))

    def writer(self) -> CheckpointWriter:
        """Opened where it is used, since opening the storage can fail, too."""
        return CheckpointWriter(self.uri, faults=FaultPlan(), layout=self.layout)


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupSave:
    """What all ranks know of it.

    Attributes:
        target: where to.
        attempt: which.
        everybody: who holds what.
        state: of this rank, at the attempt's step.
        assigned: what this rank writes.
    """

    target: Target
    attempt: Attempt
    everybody: Holdings
    state: LocalState
    assigned: Portion

    @classmethod
    def agreed(
        cls,
        ranks: Ranks,
        target: Target,
        state: LocalState,
        *,
        step: int,
        dealer: Dealer | None = None,
        asked: Mapping[str, int] | None = None,
        problem: str = "",
        failed: Mapping[str, str] | None = None,
        heard: Callable[[Collection[str]], None] = lambda attempts: None,
    ) -> GroupSave:
        """All ranks call it together, each with its own part of the state.

        Args:
            ranks: the group.
            target: where to.
            state: this rank's part.
            step: that it is at.
            dealer: that of this rank; None: a new one.
            asked: what else all ranks have to ask for alike, by name.
            problem: why this rank has nothing to save; all hear it, and no save begins.
            failed: earlier attempts of which this rank has yet to tell that they failed, and why; if one rank has
                any, no save begins.
            heard: called with those of all ranks before it is raised: a slower rank need not tell them again.

        Raises:
            CheckpointError: a rank says so, ranks ask for different things, a tensor of one is not what its key and
                region say, or what is beside the tensors cannot be stored.
            UsageError: the target or the step cannot be, of one rank alone.
            PlanError: the same, of one rank alone; ranks do not agree on a tensor, or a part of one is held by nobody.
        """
        if wrong := _cannot_save(ranks, target, state, step):
            state, problem = LocalState(()), problem or wrong
        own = {
            "nonce": uuid.uuid4().hex,
            "held": told(state),
            "failed": dict(failed or {}),
            "problem": problem,
            "asked": {"step": step, "layout": target.layout, **(asked or {})} if not problem else {},
        }
        said = ranks.gather(own, f"saving step {step} to {target.uri}")
        if refused := failures(["\n".join(filter(None, [*one["failed"].values(), one["problem"]])) for one in said]):
            heard({attempt for one in said for attempt in one["failed"]})
            raise CheckpointError("\n".join(refused), hint="nothing was begun; the next call saves")
        check_alike(
            f"saving to {target.uri}",
            [one["asked"] for one in said],
            hint="nothing was begun; let all ranks save the same step, with the same arguments",
        )
        everybody = Holdings.of([one["held"] for one in said], StateVersion(_LINEAGE, step))
        name = attempt_id(LIBRARY, step, said[0]["nonce"])
        return cls(
            target=target,
            attempt=Attempt(job=LIBRARY, step=step, lineage=_LINEAGE, epoch=_EPOCH, attempt=name),
            everybody=everybody,
            state=everybody.here(state),
            assigned=(dealer or Dealer(rank_holder(ranks.rank))).portion(everybody.layout),
        )

    def write(
        self,
        rank: int,
        data: EntryData,
        *,
        alive: Callable[[], None] = nothing,
        confirm: Callable[[], None] = nothing,
    ) -> PartReport:
        """Writes this rank's part.

        Raises:
            CheckpointError: the storage refused; nothing of the part is left.
        """
        writer, shapes = self.target.writer(), self.everybody.layout.shapes
        return writer.write_part(self.attempt, writer=rank, data=data, shapes=shapes, alive=alive, confirm=confirm)

    def complete(self, ranks: Ranks, part: PartReport | None, error: str = "") -> CheckpointRef:
        """Makes the parts a checkpoint, on all ranks or on none; all of them call it together.

        Args:
            ranks: the group.
            part: what this rank wrote; None: it failed.
            error: why.

        Raises:
            CheckpointError: a rank failed, or the storage refused. Nothing counts, and no part is left, unless the
                storage completed the checkpoint, and failed then. On all ranks.
        """
        step, uri = self.attempt.step, self.target.uri
        told_part = None if part is None else to_wire(part)
        said = ranks.gather({"error": error, "part": told_part}, f"saving step {step} to {uri}")
        failed = failures([one["error"] for one in said])
        if failed:
            if ranks.rank == 0:
                with contextlib.suppress(TrainctlError):  # what is left has no root manifest, so it never counts
                    self.target.writer().discard(self.attempt)
            ranks.gather(True)  # nobody hears of it before it is gone
            raise CheckpointError(
                "\n".join([f"saving step {step} to {uri} failed:", *failed]), hint="no rank goes on with a part of it"
            )
        parts = [from_wire(PartReport, one["part"]) for one in said]

        def seal() -> dict[str, Any]:
            if ranks.rank:
                return {}
            sealed: dict[str, Any] = to_wire(self._sealed(parts))
            return sealed

        sealed = ranks.together(f"completing step {step} in {uri}", seal)
        return from_wire(CheckpointRef, ranks.gather(sealed)[0])

    def _sealed(self, parts: list[PartReport]) -> CheckpointRef:
        target, writer = self.target, self.target.writer()
        try:
            described = self.everybody.described(self.state)
            ref = writer.seal(self.attempt, state=described, parts=parts, parent=newest(target.uri, job=LIBRARY))
        except TrainctlError:
            writer.discard(self.attempt)
            raise
        if target.keep:
            writer.retain(job=LIBRARY, keep=target.keep, protect=frozenset({ref.attempt}))
        return ref


def _cannot_save(ranks: Ranks, target: Target, state: LocalState, step: object) -> str:
    """Why not, for the others to hear; "" if it can. A rank alone has nobody to tell: there it raises."""
    try:
        target.check(step)
        state.check()
        if ranks.rank == 0:
            encode_beside(state.objects, state.artifacts)
    except TrainctlError as error:
        if ranks.size == 1:
            raise
        return told_of(error)
    return ""


def check_alike(what: str, asked: Sequence[Mapping[str, Any]], *, hint: str) -> None:
    """Sees that all ranks make the same call.

    Args:
        what: is going on.
        asked: what has to be alike, by name, of every rank.
        hint: what became of it, and what to do.

    Raises:
        CheckpointError: lists all that is not alike. On all ranks, if all were given the same.
    """
    if others := _unlike(asked):
        raise CheckpointError(
            "\n".join([f"{what}: expected the same call on all ranks, found:", *others]),
            hint=hint,
        )


def _unlike(asked: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line for each thing that ranks do not ask for alike."""
    found: list[str] = []
    for name in dict.fromkeys(itertools.chain.from_iterable(asked)):
        ranks: dict[str, list[int]] = {}
        for rank, one in enumerate(asked):
            ranks.setdefault(str(one.get(name)), []).append(rank)
        if len(ranks) > 1:
            said = (f"{value} on rank{'s' if len(who) > 1 else ''} {spans(who)}" for value, who in ranks.items())
            found.append(f"{name}: {', '.join(said)}")
    return found
