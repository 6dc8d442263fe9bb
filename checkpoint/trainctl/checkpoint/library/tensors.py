"""State as named parts of logical tensors, however it is cut: flat ranges, boxes, replicas, pipeline stages."""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch.distributed as dist

from trainctl.checkpoint.kept.catalog import is_root_of, older, passed_over, resolve
from trainctl.checkpoint.kept.damage import mark_damaged
from trainctl.checkpoint.layout.key import StateVersion
from trainctl.checkpoint.library.group_save import GroupSave, Target, check_alike, path_of
from trainctl.checkpoint.library.holdings import Holdings, told
from trainctl.checkpoint.library.ranks import Ranks
from trainctl.checkpoint.library.ranks import told as told_of
from trainctl.checkpoint.library.replicas import compare_replicas
from trainctl.checkpoint.live.state import LocalState
from trainctl.checkpoint.load.load_watch import LoadWatch
from trainctl.checkpoint.load.loading import LoadPlan, plan_load
from trainctl.checkpoint.load.sharing import Sharing
from trainctl.checkpoint.save.model_files import CHUNKED
from trainctl.checkpoint.save.saving import live_data
from trainctl.checkpoint.storage.probe import reach
from trainctl.core.codec import from_wire, to_wire
from trainctl.core.errors import DamagedCheckpointError, TrainctlError, UsageError
from trainctl.core.records.generation import CheckpointRef

T = TypeVar("T")
_LOG = logging.getLogger("trainctl.checkpoint")


@dataclass(frozen=True, slots=True)
class Loaded:
    """What was loaded.

    Attributes:
        uri: folder of the checkpoint.
        step: of the state.
        objects: what was saved beside the tensors.
        passed_over: what is wrong with newer checkpoints that were not taken, or were given up, newest first.
        healed_reads: what came to this rank with wrong bytes and, read again, was right: no damage, but something
            changes bytes on their way.
    """

    uri: str
    step: int
    objects: Mapping[str, Any]
    passed_over: tuple[str, ...] = ()
    healed_reads: int = 0


def save_state(
    uri: str | os.PathLike[str],
    state: LocalState,
    *,
    step: int,
    keep: int = 0,
    layout: str = CHUNKED,
    check_replicas: bool = False,
    group: dist.ProcessGroup | None = None,
) -> CheckpointRef:
    """Saves the parts that all ranks hold; on return the checkpoint is complete, on every rank.

    Args:
        uri: folder for checkpoints, or anything that fsspec opens.
        state: this rank's parts (see ``StateTensor``). Ranks may hold different tensors; what several hold is saved
            once. Objects and artifacts are those of rank 0.
        step: that the state is at.
        keep: remove older checkpoints of this folder but so many; 0: keep all.
        layout: ``hf``: parameters and buffers go to safetensors files with whole tensors, as transformers reads them;
            it takes a folder on disk.
        check_replicas: compare first what several ranks hold: where it differs nothing is saved. It reads all of the
            state once more; without it a share comes from each of them.
        group: its ranks; None: the default group, or this process alone.

    Raises:
        CheckpointError: the storage refused, ranks ask for different steps, or replicas were compared and differ;
            nothing counts then. Raised on all ranks.
        PlanError: ranks do not agree on a tensor, or a part of one is held by nobody. Raised on all ranks.
        UsageError: a folder, a step or a number to keep that cannot be; where there are several ranks, CheckpointError.
    """
    target = Target(uri=path_of(uri), keep=keep, layout=layout)
    return save_asked(Ranks(group), target, state, step=step, check=check_replicas, asked={})


def save_asked(
    ranks: Ranks, target: Target, state: LocalState, *, step: int, check: bool, asked: Mapping[str, int]
) -> CheckpointRef:
    """As ``save_state``.

    Args:
        ranks: the group.
        target: where to.
        state: see there.
        step: see there.
        check: whether to compare replicas.
        asked: what else all ranks have to ask for alike, by name.

    Raises:
        CheckpointError, PlanError, UsageError: see there.
    """
    what = f"saving step {step} to {target.uri}"
    save = GroupSave.agreed(ranks, target, state, step=step, asked={**asked, "check_replicas": check})
    if check:
        compare_replicas(ranks, save.state, what)
    part, cause = None, None
    try:
        part = save.write(ranks.rank, live_data(save.state, save.assigned))
    except Exception as failure:  # whatever it is: the others wait for this rank, and what they wrote has to go
        cause = failure
    try:
        return save.complete(ranks, part, "" if cause is None else told_of(cause))
    except TrainctlError as failed:
        if cause is not None and ranks.size == 1:
            raise cause from None
        raise failed from cause


def load_state(
    uri: str | os.PathLike[str],
    state: LocalState,
    *,
    kinds: Collection[str] | None = None,
    cast: bool = False,
    fallback: bool = False,
    verify_first: bool = False,
    group: dist.ProcessGroup | None = None,
) -> Loaded:
    """Fills the parts that this rank wants; ranks may want others than the ranks that saved had.

    Every byte that is wanted is read once, by one of the ranks, verified, and passed on to those that want it, too.
    Where the checkpoint does not fit, all tensors stay as they are. Where it turns out to be damaged some hold other
    values then, as the error says, unless it was verified first.

    Args:
        uri: of one checkpoint, or a folder of which the newest is taken.
        state: what to fill.
        kinds: only these kinds of tensors (``param``, ``buffer``, ``exp_avg``, ...) are looked at; None: all that were
            saved have to be wanted by some rank.
        cast: whether floating-point tensors may be stored in another floating-point dtype.
        fallback: whether a damaged checkpoint may be given up for the newest older one that it descends from, by all
            ranks alike. It is marked as damaged then; a warning and ``passed_over`` say what was wrong with it.
        verify_first: whether everything is read twice, so that tensors stay as they are where it is damaged.
        group: the ranks; None: the default group, or this process alone.

    Raises:
        CheckpointError: it cannot be read, is damaged, or does not fit (all differences are listed), or ranks ask for
            different things; with ``fallback`` all that were tried are named. Raised on all ranks.
    """
    return load_fitting(uri, state, kinds=kinds, cast=cast, fallback=fallback, verify_first=verify_first, group=group)


def load_fitting(
    uri: str | os.PathLike[str],
    state: LocalState,
    fits: Callable[[CheckpointRef, Mapping[str, Any]], None] = lambda ref, objects: None,
    *,
    kinds: Collection[str] | None,
    cast: bool,
    fallback: bool,
    verify_first: bool,
    group: dist.ProcessGroup | None,
) -> Loaded:
    """As ``load_state``.

    Args:
        uri: see there, as all others.
        state: see there.
        fits: called with what is beside the tensors before any of them changes; raises where it does not fit.
        kinds: see there.
        cast: see there.
        fallback: see there.
        verify_first: see there.
        group: see there.

    Raises:
        CheckpointError: see there; or ``fits`` says so.
    """
    uri = path_of(uri)
    ranks = Ranks(group)
    found = _looked(ranks, uri, state, fallback=fallback, verify_first=verify_first)
    skipped: list[str] = list(found["passedOver"])
    version = next((tensor.key.version for tensor in state.tensors), StateVersion(0, 0))
    wanted = Holdings.of(ranks.gather(told(state)), version).layout
    planned = functools.partial(plan_load, state=state, everything=wanted.shapes, kinds=kinds, cast=cast, all_here=True)
    with ranks.exchange() as exchange:
        sharing = Sharing(exchange, wanted) if exchange is not None else None
        healed_reads = 0
        for ref in (from_wire(CheckpointRef, one) for one in found["choices"]):
            watch = LoadWatch()
            plan = functools.partial(planned, ref, watch=watch, sharing=sharing)
            objects, damage = _attempted(
                ranks, ref, functools.partial(_fitting, plan, fits), watch, fallback=fallback, verify_first=verify_first
            )
            healed_reads += watch.rereads.healed
            if objects is not None:
                return Loaded(ref.uri, ref.step, objects, tuple(skipped), healed_reads)
            skipped.append(damage)
            if ranks.rank == 0:
                _LOG.warning("%s is given up for an older checkpoint, if there is one: %s", ref.uri, damage)
    raise DamagedCheckpointError(
        "\n".join([f"{uri}: no checkpoint is left, every one is damaged:", *skipped]),
        hint="restore the files of one of them from a copy",
    )


def _looked(ranks: Ranks, uri: object, state: LocalState, *, fallback: bool, verify_first: bool) -> dict[str, Any]:
    """What rank 0 found there (``_choices``), once all ranks asked for the same."""

    def looked() -> dict[str, Any]:
        if not isinstance(uri, str) or not uri:
            raise UsageError(f"uri: expected a checkpoint, or a folder of them, found {uri!r}")
        state.check()
        asked = {"fallback": fallback, "verify_first": verify_first}
        return {"asked": asked, **({} if ranks.rank else _choices(uri, fallback))}

    said: list[dict[str, Any]] = ranks.gather(ranks.together(f"looking for a checkpoint in {uri}", looked))
    check_alike(
        f"loading {uri}",
        [one["asked"] for one in said],
        hint="nothing was loaded; let all ranks give the same arguments",
    )
    return said[0]


def _fitting(plan: Callable[[], LoadPlan], fits: Callable[[CheckpointRef, Mapping[str, Any]], None]) -> LoadPlan:
    planned = plan()
    fits(planned.ref, planned.objects)
    return planned


def _choices(uri: str, fallback: bool) -> dict[str, Any]:
    """What to load, best first, and what is wrong with newer ones."""
    reach(uri)
    first = resolve(uri)
    newer = list(passed_over(first)) if is_root_of(uri, first) else []
    if newer and not fallback:
        raise DamagedCheckpointError(
            "\n".join([f"the newest checkpoint in {uri} is damaged, and fallback=True was not given:", *newer]),
            hint=f"give fallback=True, or name the one to load, such as {first.uri}",
        )
    return {"choices": to_wire([first, *(older(first) if fallback else ())]), "passedOver": newer}


def _attempted(
    ranks: Ranks,
    ref: CheckpointRef,
    plan: Callable[[], LoadPlan],
    watch: LoadWatch,
    *,
    fallback: bool,
    verify_first: bool,
) -> tuple[Mapping[str, Any] | None, str]:
    """What was loaded; or, where all that is wrong is the checkpoint itself and others may be tried, what that is."""
    damage = ""

    def together(do: Callable[[], T], instead: T) -> T:
        """Nobody goes on to the next stage before all have done this one."""

        def guarded() -> T:
            nonlocal damage
            try:
                return do()
            except DamagedCheckpointError as error:
                if not fallback:
                    raise
                mark_damaged(ref, error)
                damage = str(error)
                return instead

        return ranks.together(f"loading {ref.uri}", guarded)

    def said() -> str:
        texts = enumerate(ranks.gather(damage))
        return "; ".join(f"rank {rank}: {text}" for rank, text in texts if text)

    def verify() -> bool:
        planned[0].verify(watch=watch)
        return True

    def fill() -> bool:
        planned[0].fill(watch=watch)
        return True

    planned: list[LoadPlan] = together(lambda: [plan()], [])
    for stage in (verify, fill) if verify_first else (fill,):
        if not said():
            together(stage, False)
    found = said()
    return (None, found) if found else (planned[0].objects, "")
