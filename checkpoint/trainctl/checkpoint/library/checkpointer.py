"""Saves beside the training, without a controller: it goes on while the state is copied, written and completed."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from types import TracebackType
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.utils.hooks import RemovableHandle

from trainctl.checkpoint.layout.layout import rank_holder
from trainctl.checkpoint.library.group_save import GroupSave, Target, path_of
from trainctl.checkpoint.library.modules import held
from trainctl.checkpoint.library.pending import PendingSave
from trainctl.checkpoint.library.ranks import Ranks, told
from trainctl.checkpoint.live.state import LocalState
from trainctl.checkpoint.manifest.values import decode_value
from trainctl.checkpoint.save.beside import encode_beside
from trainctl.checkpoint.save.dealing import Dealer
from trainctl.checkpoint.save.model_files import CHUNKED
from trainctl.checkpoint.snapshot.background import RETRY_AFTER_S
from trainctl.checkpoint.snapshot.host_pool import HostPool
from trainctl.checkpoint.snapshot.stowage import Stower
from trainctl.core.errors import CheckpointError, TrainctlError, UsageError
from trainctl.core.records.generation import CheckpointRef

FENCE_S = 60.0
_LEAVE_S = 10.0


class Checkpointer:
    """Saves to one folder. All ranks make one, and call its methods, in the same order; close it at the end.

    Not for several threads. It holds the memory of the copies, which is used again by the next.

    Args:
        uri: folder for checkpoints, or anything that fsspec opens.
        keep: remove older checkpoints of this folder but so many; 0: keep all.
        layout: ``hf``: parameters and buffers go to safetensors files as transformers reads them; takes a disk.
        group: all ranks; None: the default group, or this process alone.
        in_flight: saves that may be on their way at once; one more waits. Each takes memory for a copy of this rank's
            share of the state.
        fence_s: how long the next change of the state waits for a copy of it; a copy that is later is dropped.
        retry_after_s: waits before a write that failed is tried again.

    Raises:
        UsageError: an argument cannot be; lists all. Where there are several ranks, CheckpointError, on all of them.
    """

    def __init__(
        self,
        uri: str | os.PathLike[str],
        *,
        keep: int = 0,
        layout: str = CHUNKED,
        group: dist.ProcessGroup | None = None,
        in_flight: int = 1,
        fence_s: float = FENCE_S,
        retry_after_s: Sequence[float] = RETRY_AFTER_S,
    ) -> None:
        self._target = Target(uri=path_of(uri), keep=keep, layout=layout)
        self._ranks = Ranks(group)
        wrong = [*self._target.problems(), *_wrong(in_flight, fence_s)]

        def checked() -> bool:
            if wrong:
                raise UsageError("\n".join(wrong))
            return True

        self._ranks.together("making a Checkpointer", checked)
        self._beside = self._ranks.beside()
        self._dealer = Dealer(rank_holder(self._ranks.rank))
        self._in_flight = in_flight
        self._fence_s = fence_s
        self._retry_after_s = tuple(retry_after_s)
        self._pool = HostPool(in_flight)
        self._stower = Stower()
        self._pending: list[PendingSave] = []
        self._newest: CheckpointRef | None = None
        self._hooks: dict[int, tuple[torch.optim.Optimizer, RemovableHandle]] = {}
        self._closed = False

    def async_save(
        self,
        *,
        model: nn.Module,
        optimizers: Sequence[torch.optim.Optimizer] = (),
        step: int,
        objects: Mapping[str, Any] | None = None,
        artifacts: Mapping[str, bytes] | None = None,
        lazy: bool | None = None,
    ) -> PendingSave:
        """Begins to save the state as it is now; ``save`` says what the arguments are.

        Args:
            model: as ``save``.
            optimizers: as ``save``. From now on the ``step`` of each waits for the copy.
            step: that the state is at.
            objects: as ``save``; as they are now.
            artifacts: as ``save``.
            lazy: copy beside the next forward and backward pass; then whatever else changes the model calls ``fence``
                first. None: only with optimizers, whose steps do so.

        Raises:
            CheckpointError, PlanError: as ``save``; or a save before failed and nobody has been told. On all ranks.
        """
        lazy = bool(optimizers) if lazy is None else lazy
        with ExitStack() as stack:
            state, problem, asked = LocalState(()), "", dict[str, int]()
            try:
                state = stack.enter_context(held(model, optimizers, objects, artifacts, first=self._ranks.rank == 0))
                asked["optimizers"] = len(optimizers)
            except Exception as error:  # also of a module's own get_extra_state
                if self._ranks.size == 1:
                    raise
                problem = told(error)  # the others wait for this rank: all of them hear it
            pending = self._begin(state, step=step, lazy=lazy, asked=asked, problem=problem)
        for optimizer in optimizers:
            if id(optimizer) not in self._hooks:
                self._hooks[id(optimizer)] = (optimizer, optimizer.register_step_pre_hook(self._before_step))
        return pending

    def async_save_state(self, state: LocalState, *, step: int, lazy: bool = False) -> PendingSave:
        """Begins to save this rank's parts of a state that is cut in any way, as ``save_state`` does.

        Args:
            state: as ``save_state``.
            step: that the state is at.
            lazy: copy beside the training: whatever changes the state calls ``fence`` first.

        Raises:
            CheckpointError, PlanError: as ``async_save``.
            UsageError: it is closed.
        """
        return self._begin(state, step=step, lazy=lazy, asked={})

    def _begin(
        self, state: LocalState, *, step: int, lazy: bool, asked: Mapping[str, int], problem: str = ""
    ) -> PendingSave:
        if self._closed:
            raise UsageError("expected an open Checkpointer, found one that was closed", hint="make a new one")
        while len(self._pending) >= self._in_flight and not self._pending[0].done():
            self._pending[0].wait()
        failed = self._take_failures()
        # The memory of now, also where a parameter is given other memory (`parameter.data = ...`) before it is copied.
        now = tuple(replace(one, tensor=one.tensor.detach()) for one in state.tensors)
        objects: Mapping[str, Any] = {}
        try:
            if self._ranks.rank == 0:
                objects = decode_value(encode_beside(state.objects, state.artifacts))  # as they are now
        except TrainctlError as error:
            if self._ranks.size == 1:
                raise
            problem = problem or told(error)
        state = replace(state, tensors=now, objects=objects)
        save = GroupSave.agreed(
            self._ranks,
            self._target,
            state,
            step=step,
            dealer=self._dealer,
            asked=asked,
            problem=problem,
            failed=failed,
            heard=self._heard,
        )
        pending = PendingSave(
            save,
            self._beside,
            self._pool,
            self._stower,
            lazy=lazy,
            fence_s=self._fence_s,
            retry_after_s=self._retry_after_s,
            before=self._pending[-1] if self._pending else None,
        )
        self._pending.append(pending)
        return pending

    def fence(self) -> None:
        """Called before the state changes, other than by the step of an optimizer that was saved: on return it may."""
        for pending in self._pending:
            pending.fence()

    def wait(self) -> CheckpointRef | None:
        """Waits for all saves; the newest checkpoint that this object has completed, None if there is none.

        Raises:
            CheckpointError: a save failed, and nobody has been told.
        """
        for pending in self._pending:
            pending.wait()
        if failed := self._take_failures():
            raise CheckpointError("\n".join(failed.values()))
        return self._newest

    def close(self) -> None:
        """Waits for all saves, and lets go of optimizers, memory and the group. Nothing happens the second time.

        Raises:
            CheckpointError: as ``wait``.
        """
        if self._closed:
            return
        self._closed = True
        self._let_go()
        for pending in self._pending:
            pending.wait()
        if self._beside is not self._ranks:
            self._beside.leave()
        if failed := self._take_failures():
            raise CheckpointError("\n".join(failed.values()))

    def __enter__(self) -> Checkpointer:
        """For ``with``: ``close`` at the end of the block."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Where the block failed, other ranks may have, too: nobody waits for them long."""
        if kind is None:
            self.close()
            return
        self._closed = True
        self._let_go()
        for pending in self._pending:
            pending.wait(_LEAVE_S)

    def _before_step(self, optimizer: torch.optim.Optimizer, arguments: Any, named: Any) -> None:
        self.fence()

    def _let_go(self) -> None:
        for _, hook in self._hooks.values():
            hook.remove()
        self._hooks.clear()

    def _heard(self, attempts: Collection[str]) -> None:
        """Another rank was faster to see these fail, and all ranks were told."""
        for pending in self._pending:
            pending.told |= pending.attempt in attempts

    def _take_failures(self) -> Mapping[str, str]:
        """Why saves (by attempt) that are over failed, if nobody has been told yet; they are forgotten."""
        over = [pending for pending in self._pending if pending.done()]
        self._pending = [pending for pending in self._pending if pending not in over]
        self._newest = next((pending.ref for pending in reversed(over) if pending.ref is not None), self._newest)
        return {pending.attempt: pending.failure for pending in over if pending.failure and not pending.told}


def _wrong(in_flight: object, fence_s: object) -> Iterator[str]:
    if type(in_flight) is not int or in_flight < 1:
        yield f"in_flight: expected 1 or more, found {in_flight!r}"
    if not isinstance(fence_s, int | float) or not fence_s >= 0:
        yield f"fence_s: expected seconds, 0 or more, found {fence_s!r}"
