"""Whether ranks that are taken for replicas hold the same values: where they do not, a save would mix them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence

import torch

from trainctl.checkpoint.differences import Difference, grouped
from trainctl.checkpoint.layout.plain import to_plain
from trainctl.checkpoint.library.ranks import Ranks
from trainctl.checkpoint.live.state import LocalState
from trainctl.checkpoint.live.tensors import byte_view
from trainctl.checkpoint.manifest.checksum import checksum
from trainctl.checkpoint.spans import spans
from trainctl.core.errors import CheckpointError


def compare_replicas(ranks: Ranks, state: LocalState, what: str) -> None:
    """Compares checksums of all that several ranks hold with the same bounds; all of them call it together.

    Args:
        ranks: the group.
        state: what this rank holds.
        what: is going on, for messages.

    Raises:
        CheckpointError: some differ; lists all that do. On all ranks.
    """
    own = ranks.together(what, lambda: _checksums(state))
    if lines := grouped(_unlike(ranks.gather(own, what))):
        raise CheckpointError(
            "\n".join([f"{what}: expected the same values on all ranks that hold a tensor, found others:", *lines]),
            hint="make them alike first, such as by a broadcast from rank 0",
        )


def _checksums(state: LocalState) -> dict[str, str]:
    """By kind, name and bounds."""
    return {
        json.dumps([t.key.kind, t.key.fqn, to_plain(t.region)]): _checksum(t.tensor)
        for t in state.tensors
        if t.tensor.numel()
    }


def _checksum(tensor: torch.Tensor) -> str:
    return checksum(byte_view(tensor.detach().cpu().reshape(-1).contiguous()))


def _unlike(said: Sequence[Mapping[str, str]]) -> Iterator[Difference]:
    held: dict[str, dict[int, str]] = {}
    for rank, one in enumerate(said):
        for name, found in one.items():
            held.setdefault(name, {})[rank] = found
    for name, by_rank in held.items():
        first = min(by_rank)
        others = [rank for rank, found in by_rank.items() if found != by_rank[first]]
        if others:
            kind, fqn, _ = json.loads(name)
            who = f"rank{'s' if len(others) > 1 else ''} {spans(others)}"
            yield Difference(kind, fqn, f"{who} hold{'' if len(others) > 1 else 's'} other values than rank {first}")
