"""The environment of a command, against what torchrun's own agent would set.

Without it a script could find other ranks here than under torchrun.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from trainctl.core.records.generation import GenerationRecord, Rung
from trainctl.parallel.plan.command_env import RESERVED, seat_of, torchrun_environment, visible_devices
from unit.generation_records import generation_record, member


def record(per_node: list[int], *, generation: int = 3, restarts: int = 2) -> GenerationRecord:
    nodes = [node for node, count in enumerate(per_node) for _ in range(count)]
    members = tuple(
        member(rank, node=f"n{node}", agent_incarnation=10 + node, address=f"10.0.0.{node}")
        for rank, node in enumerate(nodes)
    )
    return generation_record(generation, members=members, rung=Rung.RESTART, restarts=restarts)


@pytest.mark.parametrize("seed", range(12))
def test_every_rank_has_a_place_of_its_own(seed: int) -> None:
    rng = random.Random(seed)
    per_node = [rng.randint(1, 5) for _ in range(rng.randint(1, 6))]
    whole = record(per_node)
    seats = [seat_of(whole, rank) for rank in range(sum(per_node))]
    assert [(s.node_rank, s.local_rank) for s in seats] == [(n, i) for n, c in enumerate(per_node) for i in range(c)]
    assert {s.nodes for s in seats} == {len(per_node)}
    for seat in seats:
        assert seat.neighbours[seat.local_rank] == seat.rank
        assert len(seat.neighbours) == per_node[seat.node_rank]


def test_two_agents_of_one_machine_are_two_nodes() -> None:
    whole = record([2, 2])
    assert [seat_of(whole, rank).local_rank for rank in range(4)] == [0, 1, 0, 1]


def test_the_variables_are_those_that_torchrun_sets() -> None:
    """Read off torch's own source, so that a new one there is noticed here."""
    from torch.distributed.elastic.agent.server import local_elastic_agent

    source = Path(local_elastic_agent.__file__).read_text()
    begin = source.index("worker_env = {")
    names = {line.split('"')[1] for line in source[begin : source.index("}", begin)].splitlines() if '":' in line}
    env = torchrun_environment(record([2, 2]), 3, master="10.0.0.0:29400", run_id="u", max_restarts=4)
    ours_alone = {"NODE_RANK", "TRAINCTL_GENERATION", "LOCAL_RANK"}  # the last one torchrun sets elsewhere
    not_ours = {name for name in names if "NCCL" in name}
    assert set(env) - ours_alone == names - not_ours
    assert set(env) <= RESERVED
    assert (env["MASTER_ADDR"], env["MASTER_PORT"]) == ("10.0.0.0", "29400")
    assert (env["RANK"], env["WORLD_SIZE"], env["LOCAL_RANK"], env["GROUP_RANK"]) == ("3", "4", "1", "1")
    assert (env["TORCHELASTIC_RESTART_COUNT"], env["TORCHELASTIC_MAX_RESTARTS"]) == ("2", "4")
    assert env["TORCHELASTIC_USE_AGENT_STORE"] == str(True)


def test_an_address_with_colons_loses_its_brackets() -> None:
    env = torchrun_environment(record([1]), 0, master="[::1]:29400", run_id="u", max_restarts=0)
    assert (env["MASTER_ADDR"], env["MASTER_PORT"]) == ("::1", "29400")


@pytest.mark.parametrize(
    ("numbers", "inherited", "visible"),
    [((2, 3), None, "2,3"), ((0, 1), "5, 7", "5,7"), ((1,), "GPU-aa,GPU-bb", "GPU-bb"), ((3, 1), None, "3,1")],
)
def test_local_rank_i_finds_its_device(numbers: tuple[int, ...], inherited: str | None, visible: str) -> None:
    assert visible_devices(numbers, inherited) == visible


def test_more_workers_than_devices_is_noticed() -> None:
    with pytest.raises(IndexError):
        visible_devices((0, 2), "0,1")
