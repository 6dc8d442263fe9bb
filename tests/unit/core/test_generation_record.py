"""What an agent is told of a generation.

Without it a large job could be too much to tell its agents, or an agent not know the seats of its workers.
"""

import random

import pytest

from trainctl.core.records.generation import GenerationRecord
from trainctl.parallel.plan.command_env import seat_of
from trainctl.protos.convert import message_to_record, record_to_message
from trainctl.protos.v1 import records_pb2
from unit.generation_records import generation_record, member


def record(agents: list[int], *, reporter: int = 0) -> GenerationRecord:
    members = tuple(member(rank, node=f"node-{agent}", agent_incarnation=agent) for rank, agent in enumerate(agents))
    return generation_record(members=members, holders=tuple(range(len(agents))), reporter=reporter)


@pytest.mark.parametrize("seed", range(20))
def test_each_agent_is_told_of_its_own_members_rank_0_and_the_former_reporter(seed: int) -> None:
    rng = random.Random(seed)
    agents = [rng.randint(1, 6) for _ in range(rng.randint(1, 20))]
    whole = record(agents, reporter=100 + rng.randrange(len(agents) + 2))
    told = whole.per_agent()
    assert set(told) == set(agents)
    order = list(dict.fromkeys(agents))
    for agent, part in told.items():
        wanted = {m for m in whole.members if m.agent_incarnation == agent or m.incarnation == whole.reporter}
        assert set(part.members) == wanted | {whole.members[0]}
        assert list(part.members) == sorted(part.members, key=lambda m: m.global_rank)
        assert (part.world_size, part.nodes, part.node_rank) == (len(agents), len(order), order.index(agent))
        assert part.holders == whole.holders
        message = record_to_message(part, records_pb2.GenerationRecord)
        assert (
            message_to_record(records_pb2.GenerationRecord.FromString(message.SerializeToString()), type(part)) == part
        )


def test_what_is_told_does_not_grow_with_the_members_of_others() -> None:
    few = record([0] * 2 + [1] * 2, reporter=100).per_agent()[1]
    many = record([0] * 2 + [1] * 2 + list(range(2, 1000)), reporter=100).per_agent()[1]
    assert few.members == many.members


def test_a_seat_is_the_same_from_the_whole_record_and_from_what_its_agent_is_told() -> None:
    whole = record([7, 7, 3, 3, 3, 9])
    for one in whole.members:
        told = whole.per_agent()[one.agent_incarnation]
        assert seat_of(told, one.global_rank) == seat_of(whole, one.global_rank)
        assert told.member(one.global_rank) == one
    assert whole.per_agent()[9].member(3) is None
