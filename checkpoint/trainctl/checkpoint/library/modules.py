"""Modules and optimizers as they are in a script: plain, wrapped in DDP, or sharded by FSDP2."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import nn

from trainctl.checkpoint.layout.key import StateVersion
from trainctl.checkpoint.library.group_save import Target, path_of
from trainctl.checkpoint.library.ranks import Ranks
from trainctl.checkpoint.library.tensors import Loaded, load_fitting, save_asked
from trainctl.checkpoint.live.dtensor import settle_shards
from trainctl.checkpoint.live.extra_state import NAME as EXTRA
from trainctl.checkpoint.live.extra_state import ExtraState
from trainctl.checkpoint.live.optimizer_probe import trained_parameters
from trainctl.checkpoint.live.optimizer_state import OptimizerState
from trainctl.checkpoint.live.state import BUFFER, PARAM, LocalState, state_of
from trainctl.checkpoint.save.beside import encode_beside
from trainctl.checkpoint.save.model_files import CHUNKED
from trainctl.core.errors import CheckpointError, PlanError, UsageError
from trainctl.core.records.generation import CheckpointRef

_LOG = logging.getLogger("trainctl.checkpoint")
_ANY_VERSION = StateVersion(0, 0)
_INSTANCE = "island-0"
"""As the first island of a job, so that its checkpoints can be loaded."""


def save(
    uri: str | os.PathLike[str],
    *,
    model: nn.Module,
    optimizers: Sequence[torch.optim.Optimizer] = (),
    step: int,
    objects: Mapping[str, Any] | None = None,
    artifacts: Mapping[str, bytes] | None = None,
    keep: int = 0,
    layout: str = CHUNKED,
    check_replicas: bool = False,
    group: dist.ProcessGroup | None = None,
) -> CheckpointRef:
    """Saves a model, and what its optimizers keep; on return the checkpoint is complete, on every rank.

    Args:
        uri: folder for checkpoints, or anything that fsspec opens.
        model: wrappers of DDP and ``torch.compile`` are taken off; DTensors are saved as they are sharded. Ranks with
            whole tensors are taken for replicas: each byte is written by one of them.
        optimizers: over parameters of the model.
        step: that the state is at.
        objects: values beside the tensors, those of rank 0: position in the data, states of schedulers. Numbers, texts,
            None, and lists, tuples, dicts and counters of such, which come back as they were.
        artifacts: files beside them, such as ``config.json``, by relative path.
        keep: remove older checkpoints of this folder but so many; 0: keep all.
        layout: ``hf``: parameters and buffers go to safetensors files with whole tensors, as transformers reads them;
            it takes a folder on disk.
        check_replicas: compare first what several ranks hold: where it differs nothing is saved. It reads all of the
            state once more; without it a share comes from each of them.
        group: all ranks; None: the default group, or this process alone.

    Raises:
        CheckpointError, PlanError: as ``save_state``; or a dtype, a placement of a DTensor, or an optimizer's state
            cannot be stored.
        UsageError: as ``save_state``.
    """
    ranks, target = Ranks(group), Target(uri=path_of(uri), keep=keep, layout=layout)
    with ExitStack() as stack:
        state = ranks.together(
            f"saving step {step} to {uri}",
            lambda: stack.enter_context(held(model, optimizers, objects, artifacts, first=ranks.rank == 0)),
        )
        return save_asked(ranks, target, state, step=step, check=check_replicas, asked={"optimizers": len(optimizers)})


@contextmanager
def held(
    model: nn.Module,
    optimizers: Sequence[torch.optim.Optimizer],
    objects: Mapping[str, Any] | None,
    artifacts: Mapping[str, bytes] | None,
    *,
    first: bool,
) -> Generator[LocalState, None, None]:
    """The live state as it is saved. Optimizers that have not stepped show theirs as long as the block lasts.

    Args:
        model: as ``save``, as all that follow.
        optimizers: see there.
        objects: see there.
        artifacts: see there.
        first: whether this is the rank whose objects and artifacts are saved; those of others are not looked at.

    Raises:
        CheckpointError, PlanError: a dtype, a placement of a DTensor, what a module keeps beside its tensors, an
            optimizer's state, an object or an artifact cannot be stored.
    """
    _refuse(model, optimizers)
    settle_shards(model)
    kept = [_kept(optimizer) for optimizer in optimizers]
    try:
        if first:
            encode_beside(objects or {}, artifacts or {})
        registered = dict(objects or {}) if first else {}
        if EXTRA in registered:
            raise CheckpointError(
                f"objects: the name {EXTRA!r} is taken by what modules keep beside tensors", hint="choose another name"
            )
        if extra := ExtraState({"": _bare(model)}):
            registered[EXTRA] = extra.state_dict()
        values = {"registered": registered, "optimizers": [optimizer.export(settings=True) for optimizer in kept]}
        yield _state(model, optimizers, values, artifacts if first else None)
    finally:
        for optimizer in kept:
            optimizer.let_go()


def load(
    uri: str | os.PathLike[str],
    *,
    model: nn.Module,
    optimizers: Sequence[torch.optim.Optimizer] | None = None,
    cast: bool = False,
    fallback: bool = False,
    verify_first: bool = False,
    group: dist.ProcessGroup | None = None,
) -> Loaded:
    """Fills a model, and what its optimizers keep, whatever number of ranks saved them.

    Args:
        uri: of one checkpoint, or a folder of which the newest is taken.
        model: of the same names and global shapes.
        optimizers: None: parameters and buffers alone, as for an evaluation.
        cast: whether floating-point tensors may be stored in another floating-point dtype.
        fallback: whether a damaged checkpoint may be given up for an older one; see ``load_state``.
        verify_first: whether the model has to survive a damaged checkpoint; it is read twice then.
        group: all ranks; None: the default group, or this process alone.

    Raises:
        CheckpointError: as ``load_state``, or it was saved with another number of optimizers.
        PlanError: an optimizer is over other parameters than the one that was saved.
    """
    kept: list[OptimizerState] = []

    def wanted() -> LocalState:
        _refuse(model, optimizers or ())
        settle_shards(model)
        kept.extend(_kept(optimizer) for optimizer in optimizers or ())
        return _state(model, optimizers or (), {}, None)

    try:
        kinds: Collection[str] | None = (PARAM, BUFFER) if optimizers is None else None
        state = Ranks(group).together(f"loading {uri}", wanted)
        found = load_fitting(
            uri,
            state,
            lambda ref, objects: None if optimizers is None else _fit(kept, ref, objects),
            kinds=kinds,
            cast=cast,
            fallback=fallback,
            verify_first=verify_first,
            group=group,
        )
        for optimizer, values in zip(kept, found.objects.get("optimizers", ()), strict=optimizers is not None):
            optimizer.load(values)
        registered = dict(found.objects.get("registered", {}))
        _take_extra(model, found.uri, registered.pop(EXTRA, None))
        return replace(found, objects=registered)
    finally:
        for optimizer in kept:
            optimizer.let_go()


def _kept(optimizer: torch.optim.Optimizer) -> OptimizerState:
    """One that has stepped shows all it keeps; and FSDP2's gradients cannot be copied for a trial."""
    stepped = all(optimizer.state.get(parameter) for parameter in trained_parameters(optimizer))
    return OptimizerState(optimizer, trial=not stepped)


def _refuse(model: object, optimizers: object) -> None:
    if not isinstance(model, nn.Module):
        raise UsageError(f"model: expected a torch.nn.Module, found {type(model).__name__}")
    if isinstance(optimizers, torch.optim.Optimizer):
        name = type(optimizers).__name__
        raise UsageError(f"optimizers: expected a list of optimizers, found one {name}", hint="put it into brackets")
    if not isinstance(optimizers, Sequence):  # what can be gone through once only is empty the second time
        name = type(optimizers).__name__
        raise UsageError(
            f"optimizers: expected a list of optimizers, found {name}", hint="give a list; without any: []"
        )


def _fit(kept: Sequence[OptimizerState], ref: CheckpointRef, objects: Mapping[str, Any]) -> None:
    """Before anything is changed."""
    saved = objects.get("optimizers", [])
    if len(saved) != len(kept):
        raise CheckpointError(
            f"{ref.uri}: expected the state of {len(kept)} optimizers, found {len(saved)}",
            hint="give the optimizers that it was saved with, or none to load the parameters alone",
        )
    for number, (optimizer, values) in enumerate(zip(kept, saved, strict=True)):
        try:
            optimizer.fit(values)
        except PlanError as error:
            raise PlanError(f"{ref.uri}, optimizer {number}: {error}", hint=error.hint) from error


def _take_extra(model: nn.Module, uri: str, values: Mapping[str, Any] | None) -> None:
    extra = ExtraState({"": _bare(model)})
    if values is not None:
        extra.load_state_dict(values)
    elif extra:
        _LOG.warning("%s has nothing of what modules keep beside tensors (get_extra_state): it stays as it is", uri)


def _bare(model: nn.Module) -> nn.Module:
    """Without what ``torch.compile`` and DDP put around it."""
    bare = getattr(model, "_orig_mod", model)
    if isinstance(bare, nn.parallel.DistributedDataParallel):
        bare = cast("nn.Module", bare.module)  # pyright: ignore[reportUnknownMemberType]  # torch leaves it open
    assert isinstance(bare, nn.Module)
    return bare


def _state(
    model: nn.Module,
    optimizers: Sequence[torch.optim.Optimizer],
    objects: Mapping[str, Any],
    artifacts: Mapping[str, bytes] | None,
) -> LocalState:
    return state_of(
        _bare(model), optimizers, instance=_INSTANCE, version=_ANY_VERSION, objects=objects, artifacts=artifacts or {}
    )
