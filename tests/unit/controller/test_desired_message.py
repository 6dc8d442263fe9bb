"""What an agent is sent of its workers.

Without it an agent could be sent what was true of another agent, or of an older generation.
"""

from dataclasses import replace

from trainctl.controller.desired_message import DesiredMessages
from trainctl.core.codec import to_wire
from trainctl.core.records.spec import JobMetadata, TrainJob
from trainctl.core.records.worker import Instruction, WorkerDesired
from trainctl.protos.convert import message_to_record, record_to_message
from trainctl.protos.v1 import records_pb2
from trainctl.protos.v1.agent_pb2 import AgentDesired
from unit.generation_records import generation_record, member


def desired(slot: int, spec: TrainJob, *, holders: tuple[int, ...] = ()) -> WorkerDesired:
    record = generation_record(2, members=(member(slot, incarnation=7),), holders=holders)
    return WorkerDesired(
        job_uid="j", job_name="a", island="island-0", slot=slot, incarnation=7, instruction=Instruction.RUN,
        generation=2, record=record, spec=to_wire(spec),
    )  # fmt: skip


def test_the_message_is_the_record_whatever_was_remembered() -> None:
    messages = DesiredMessages()
    first, second = TrainJob(metadata=JobMetadata(name="a")), TrainJob(metadata=JobMetadata(name="b"))
    same = to_wire(first)
    for slot, spec, holders in ((0, first, (0, 1)), (1, first, ()), (0, second, (1,)), (0, first, (0,))):
        one = desired(slot, spec, holders=holders)
        one = replace(one, spec=same) if spec is first else one
        message = messages.add(one, AgentDesired())
        assert message == record_to_message(one, records_pb2.WorkerDesired)
        assert message_to_record(message, WorkerDesired).record == one.record
    messages.forget("j")
    assert messages.add(desired(0, second), AgentDesired()).spec.metadata.name == "b"


def test_what_differs_between_agents_and_generations_is_sent() -> None:
    messages = DesiredMessages()
    spec = TrainJob(metadata=JobMetadata(name="a"))
    for generation, nonce in ((2, "n"), (3, "n"), (3, "m")):
        for slot in range(3):
            one = desired(slot, spec, holders=(0, 2))
            assert one.record is not None
            record = replace(one.record, generation=generation, nonce=nonce, ranks=3, nodes=3, node_rank=slot)
            one = replace(one, record=record, generation=generation)
            assert messages.add(one, AgentDesired()) == record_to_message(one, records_pb2.WorkerDesired)


def test_a_worker_without_a_record_is_sent_none() -> None:
    one = replace(desired(0, TrainJob(metadata=JobMetadata(name="a"))), record=None, instruction=Instruction.STANDBY)
    assert not DesiredMessages().add(one, AgentDesired()).HasField("record")
