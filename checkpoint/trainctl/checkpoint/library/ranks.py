"""The ranks of a ``torch.distributed`` process group, as far as saving and loading need them."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from trainctl.checkpoint.exchange.port import Exchange, Work
from trainctl.checkpoint.exchange.watched import MessageWork, Watchers
from trainctl.checkpoint.library.waiting import said_while_waiting
from trainctl.checkpoint.spans import spans
from trainctl.core.errors import CheckpointError, TrainctlError

T = TypeVar("T")
_SILENCE_S = 3600.0
"""How long the slowest rank may write after the fastest."""


class Ranks:
    """All ranks of a group; one, where there is no group.

    Args:
        group: None: the default group, if there is one.
    """

    _word_s = 10.0

    def __init__(self, group: dist.ProcessGroup | None) -> None:
        self._group = group
        self._alone = group is None and not (dist.is_available() and dist.is_initialized())
        self.rank = 0 if self._alone else dist.get_rank(group)
        self.size = 1 if self._alone else dist.get_world_size(group)

    def gather(self, value: Any, what: str = "") -> list[Any]:
        """The JSON value of every rank, in rank order. Who waits long for the others says so in the log.

        Args:
            value: of this rank.
            what: is going on, for the log.

        Raises:
            CheckpointError: a rank is gone; beside the training torch's own RuntimeError says so.
        """
        if self._alone:
            return [value]
        data = json.dumps(value, separators=(",", ":")).encode()
        who = f"rank {self.rank} of {self.size} has waited for the other ranks"
        with said_while_waiting(what, who, self._gives_up_s(), every_s=self._word_s):
            lengths = [int(size) for size in self._all(torch.tensor([len(data)]))]
            own = torch.zeros(max(lengths), dtype=torch.uint8)
            own[: len(data)] = torch.frombuffer(bytearray(data), dtype=torch.uint8)
            parts = self._all(own)
        return [json.loads(bytes(p[:n].cpu().numpy())) for p, n in zip(parts, lengths, strict=True)]

    def together(self, what: str, work: Callable[[], T]) -> T:
        """Does ``work`` on every rank; where one fails, all raise, so that nobody waits for it.

        Raises:
            CheckpointError: ``what`` failed; says on which ranks, and why.
        """
        error, result, cause = "", None, None
        try:
            result = work()
        except Exception as failure:  # whatever it is: the others would wait for this rank
            if self.size == 1:
                raise
            cause, error = failure, told(failure)
        failed = failures(self.gather(error, what))
        if failed:
            text = "\n".join([f"{what} failed:", *failed])
            raise CheckpointError(text, hint="no rank goes on with a part of it") from cause
        assert result is not None
        return result

    def beside(self) -> Ranks:
        """The same ranks in a group of their own, for a thread beside the training; all of them call it together."""
        if self._alone:
            return self
        # Groups of torch are named after their ranks: a second one would find the addresses of one that has ended.
        name = self.gather(uuid.uuid4().hex)[0]
        return _Beside(self.rank, self.size, f"trainctl-{name}")

    @contextmanager
    def exchange(self) -> Generator[Exchange | None, None, None]:
        """Messages between the ranks as long as the block lasts; all of them call it together. None: there is one."""
        if self.size == 1:
            yield None
            return
        ranks = self if "gloo" in dist.get_backend(self._group) else self.beside()
        messages = _Messages(ranks)
        try:
            yield messages
        finally:
            messages.close()
            if ranks is not self:
                ranks.leave()

    def send(self, buffer: torch.Tensor, destination: int, tag: int) -> Any:
        """Begins to send from host memory to one rank; torch's handle of it."""
        return dist.isend(buffer, group=self._group, tag=tag, group_dst=destination)

    def receive(self, buffer: torch.Tensor, source: int, tag: int) -> Any:
        """Begins to receive into host memory; torch's handle of it."""
        return dist.irecv(buffer, group=self._group, tag=tag, group_src=source)

    def _gives_up_s(self) -> float | None:
        """After how long torch does; None: it does not say."""
        group = self._group or dist.group.WORLD
        try:
            timeout: timedelta = group._get_backend(_device(self._group)).options._timeout  # type: ignore[union-attr]
        except (AttributeError, RuntimeError):
            return None
        return timeout.total_seconds()

    def leave(self) -> None:
        """Ends a group that ``beside`` made: whoever still waits in it for this rank hears that it is gone."""

    def _all(self, own: torch.Tensor) -> list[torch.Tensor]:
        device = _device(self._group)
        own = own.to(device)
        parts = [torch.empty_like(own) for _ in range(self.size)]
        try:
            dist.all_gather(parts, own, group=self._group)  # pyright: ignore[reportUnknownMemberType]  # unannotated
        except RuntimeError as error:  # of torch, in the words of the network
            text = str(error).split("\n", 1)[0]
            raise CheckpointError(
                f"rank {self.rank} of {self.size} cannot reach the others: a rank is gone or silent: {text}",
                hint="see what ended it; a checkpoint that was not completed does not count",
            ) from error
        return parts


def _device(group: dist.ProcessGroup | None) -> torch.device:
    """Where what all ranks gather has to lie."""
    return torch.device("cuda") if dist.get_backend(group) == "nccl" else torch.device("cpu")


class _Messages:
    """Implements ``Exchange``.

    Args:
        ranks: whose messages; by gloo.
    """

    def __init__(self, ranks: Ranks) -> None:
        self.rank = ranks.rank
        self.size = ranks.size
        self.device = torch.device("cpu")
        self._ranks = ranks
        self._watchers = Watchers()

    def send(self, buffer: torch.Tensor, destination: int, tag: int) -> Work:
        """See ``Exchange``."""
        work = MessageWork(self._ranks.send(buffer, destination, tag), buffer)
        self._watchers.add("send", destination, work)
        return work

    def receive(self, buffer: torch.Tensor, source: int, tag: int) -> Work:
        """See ``Exchange``."""
        work = MessageWork(self._ranks.receive(buffer, source, tag), buffer)
        self._watchers.add("receive", source, work)
        return work

    def close(self) -> None:
        """Nothing more is sent."""
        self._watchers.stop()


class _Beside(Ranks):
    """Ranks that meet by gloo, whatever the training uses."""

    _word_s = 60.0
    """Nobody stands still meanwhile."""

    def __init__(self, rank: int, size: int, name: str) -> None:
        from torch.distributed import ProcessGroupGloo
        from torch.distributed.distributed_c10d import (
            PrefixStore,
            _get_default_store,  # pyright: ignore[reportPrivateUsage]  # torch gives the store no other name
        )

        gloo: Any = ProcessGroupGloo  # torch's stubs leave most of it out
        self._alone = False
        self._gloo: Any = gloo(PrefixStore(name, _get_default_store()), rank, size, timedelta(seconds=_SILENCE_S))
        self.rank = rank
        self.size = size

    def beside(self) -> Ranks:
        """They are."""
        return self

    def send(self, buffer: torch.Tensor, destination: int, tag: int) -> Any:
        return self._gloo.send([buffer], destination, tag)

    def receive(self, buffer: torch.Tensor, source: int, tag: int) -> Any:
        return self._gloo.recv([buffer], source, tag)

    def _gives_up_s(self) -> float | None:
        return _SILENCE_S

    def leave(self) -> None:
        self._gloo = None

    def _all(self, own: torch.Tensor) -> list[torch.Tensor]:
        gloo = self._gloo
        if gloo is None:
            raise RuntimeError("the group has ended")
        parts = [torch.empty_like(own) for _ in range(self.size)]
        gloo.allgather([parts], [own]).wait()
        return parts


def told(failure: Exception) -> str:
    """What one rank tells the others of its failure: what is wrong, and what to do."""
    if not isinstance(failure, TrainctlError | OSError):
        return f"{type(failure).__name__}: {failure}"
    hint = getattr(failure, "hint", "")
    return (str(failure) or type(failure).__name__) + (f" ({hint})" if hint else "")


def failures(said: Sequence[str]) -> list[str]:
    """What the ranks said that went wrong, each text once with all who said it; an empty text is no failure."""
    ranks: dict[str, list[int]] = {}
    for rank, text in enumerate(said):
        if text:
            ranks.setdefault(text, []).append(rank)
    return [f"rank{'s' if len(who) > 1 else ''} {spans(who)}: {text}" for text, who in ranks.items()]
