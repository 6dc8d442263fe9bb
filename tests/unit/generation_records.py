"""Records of generations as tests need them: what a test does not care about is filled in."""

from __future__ import annotations

from typing import Any

from trainctl.core.records.generation import GenerationRecord, Member


def member(rank: int, **fields: Any) -> Member:
    """The worker of a rank; ``slot``, ``incarnation``, ``node``, ``agent_incarnation`` and ``address`` as wished."""
    wished = {"slot": rank, "incarnation": 100 + rank, "node": "n", "agent_incarnation": 1, "address": "127.0.0.1"}
    return Member(global_rank=rank, **{**wished, **fields})


def generation_record(generation: int = 4, *, members: tuple[Member, ...] = (), **fields: Any) -> GenerationRecord:
    """A record of island ``island-0`` of job ``u``, after the generation before it; ``fields`` as wished."""
    wished: dict[str, Any] = {
        "job_uid": "u", "island": "island-0", "job_generation": 1, "predecessor": generation - 1, "epoch": 1,
        "nonce": "n", "lineage": 1, "store_address": "h:1", "target_step": 0,
    }  # fmt: skip
    return GenerationRecord(generation=generation, members=members, **{**wished, **fields})
