"""The environment of a command: what ``torchrun`` gives a worker process, made from the generation record. Pure.

Names and meanings are those of torch.distributed.elastic's local agent (``LocalElasticAgent._start_workers``, torch
2.13), so that a script that runs under torchrun runs here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trainctl.core.errors import InternalError
from trainctl.core.records.generation import GenerationRecord, Member

HEARTBEAT_VARIABLE = "TRAINCTL_HEARTBEAT_FILE"
VISIBLE_DEVICES_VARIABLE = "CUDA_VISIBLE_DEVICES"
DEVICE_OF_AGENT_VARIABLE = "LOCAL_RANK"
"""In the launcher's own environment: the number of its worker on the machine, and so of its accelerator."""

RESERVED = frozenset(
    {
        "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "GROUP_WORLD_SIZE", "NODE_RANK",
        "ROLE_RANK", "ROLE_WORLD_SIZE", "ROLE_NAME", "MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RESTART_COUNT",
        "TORCHELASTIC_MAX_RESTARTS", "TORCHELASTIC_RUN_ID", "TORCHELASTIC_USE_AGENT_STORE", "TRAINCTL_JOB",
        "TRAINCTL_GENERATION", "TRAINCTL_WORKDIR", HEARTBEAT_VARIABLE,
    }
)  # fmt: skip
"""Variables that are set for the command; a job file must not set them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """Where a rank sits in its generation.

    Attributes:
        rank: in the generation.
        world_size: ranks of the generation.
        local_rank: position among the ranks of its node.
        neighbours: ranks of its node, itself included, in order.
        node_rank: position of its node among the nodes, by lowest rank.
        nodes: number of nodes.
    """

    rank: int
    world_size: int
    local_rank: int
    neighbours: tuple[int, ...]
    node_rank: int
    nodes: int


def seat_of(record: GenerationRecord, rank: int) -> Seat:
    """The seat of ``rank``, whose agent ``record`` tells of; a node is one agent life, as two may share a machine."""
    own = record.member(rank)
    if own is None:
        raise InternalError(f"generation {record.generation}: rank {rank} is not of this agent")
    told = record if record.ranks else record.per_agent()[own.agent_incarnation]
    neighbours = tuple(m.global_rank for m in told.members if m.agent_incarnation == own.agent_incarnation)
    return Seat(
        rank=rank,
        world_size=told.world_size,
        local_rank=neighbours.index(rank),
        neighbours=neighbours,
        node_rank=told.node_rank,
        nodes=told.nodes,
    )


def torchrun_environment(
    record: GenerationRecord, rank: int, *, master: str, run_id: str, max_restarts: int
) -> dict[str, str]:
    """The variables of torchrun for one rank.

    Args:
        record: the committed generation.
        rank: in it.
        master: ``host:port`` of a store made for this generation only; every rank is a client of it.
        run_id: the same in all generations of a job.
        max_restarts: budget for exit codes.
    """
    seat = seat_of(record, rank)
    host, _, port = master.rpartition(":")
    numbers = {
        "RANK": seat.rank,
        "WORLD_SIZE": seat.world_size,
        "LOCAL_RANK": seat.local_rank,
        "LOCAL_WORLD_SIZE": len(seat.neighbours),
        "GROUP_RANK": seat.node_rank,
        "GROUP_WORLD_SIZE": seat.nodes,
        "NODE_RANK": seat.node_rank,
        "ROLE_RANK": seat.rank,
        "ROLE_WORLD_SIZE": seat.world_size,
        "TORCHELASTIC_RESTART_COUNT": record.restarts,
        "TORCHELASTIC_MAX_RESTARTS": max_restarts,
        "TRAINCTL_GENERATION": record.generation,
    }
    return {
        **{name: str(number) for name, number in numbers.items()},
        "ROLE_NAME": "default",
        "MASTER_ADDR": host.strip("[]"),
        "MASTER_PORT": port,
        "TORCHELASTIC_RUN_ID": run_id,
        "TORCHELASTIC_USE_AGENT_STORE": "True",
    }


def host_of(members: Sequence[Member]) -> str:
    """Where rank 0 serves the store of its generation."""
    return members[0].address


def visible_devices(numbers: Sequence[int], inherited: str | None) -> str:
    """``CUDA_VISIBLE_DEVICES`` in which ``LOCAL_RANK`` i finds the device of the i-th rank of its node.

    Args:
        numbers: of the workers on the machine, in rank order.
        inherited: the variable as the agent has it: a subset of the machine's devices that the numbers count in.

    Raises:
        IndexError: the agent sees fewer devices than it has workers.
    """
    if inherited is None:
        return ",".join(map(str, numbers))
    known = [name.strip() for name in inherited.split(",") if name.strip()]
    return ",".join(known[number] for number in numbers)
