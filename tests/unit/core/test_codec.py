"""Without it a zero, an absent value or a float could change between two processes, or an upgrade break the old one."""

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainctl.core.codec import WireError, from_wire, to_wire
from trainctl.core.records.generation import GenerationRecord, Member, Rung
from trainctl.core.records.spec import JobMetadata, TrainJob
from trainctl.core.records.step import Outcome, StepAction, StepReport
from trainctl.core.records.worker import Instruction, WorkerDesired, WorkerObserved, WorkerPhase
from trainctl.protos.convert import message_to_record, record_to_message
from trainctl.protos.v1 import records_pb2

outcomes = st.builds(
    Outcome,
    generation=st.integers(0, 2**31 - 1),
    lineage=st.integers(0, 100),
    step=st.integers(0, 2**31 - 1),
    action=st.sampled_from(StepAction),
    gradient_scale=st.floats(allow_nan=False),
    learning_rate=st.floats(allow_nan=False),
    loss_sum=st.floats(allow_nan=False),
    tokens=st.integers(0, 2**53),
    gradient_norm=st.floats(allow_nan=False),
    cursor=st.integers(0, 2**60),
    sample_digest=st.integers(0, 2**64 - 1),
    reason=st.text(max_size=20),
)
members = st.builds(
    Member,
    global_rank=st.integers(0, 64),
    slot=st.integers(0, 64),
    incarnation=st.integers(0, 2**62),
    node=st.text(max_size=8),
    agent_incarnation=st.integers(0, 2**62),
    address=st.text(max_size=8),
)
records = st.builds(
    GenerationRecord,
    job_uid=st.text(max_size=8),
    island=st.just("island-0"),
    job_generation=st.integers(1, 5),
    generation=st.integers(1, 500),
    predecessor=st.integers(0, 500),
    epoch=st.integers(0, 2**40),
    nonce=st.text(max_size=8),
    lineage=st.integers(0, 9),
    members=st.lists(members, max_size=4).map(tuple),
    store_address=st.text(max_size=12),
    target_step=st.integers(0, 10**6),
    outcome=st.none() | outcomes,
    rung=st.sampled_from(Rung),
    holders=st.lists(st.integers(0, 8), max_size=4).map(tuple),
    checkpointed_step=st.integers(-1, 100),
    reason=st.text(max_size=20),
)


@given(records)
def test_record_survives_the_wire_bit_for_bit(record: GenerationRecord) -> None:
    assert from_wire(GenerationRecord, to_wire(record)) == record
    message = record_to_message(record, records_pb2.GenerationRecord)
    again = records_pb2.GenerationRecord.FromString(message.SerializeToString())
    assert message_to_record(again, GenerationRecord) == record


def test_zero_is_not_mistaken_for_a_default() -> None:
    record = from_wire(GenerationRecord, {"members": [], "checkpointedStep": 0, "rung": "peer"})
    message = record_to_message(record, records_pb2.GenerationRecord)
    assert message_to_record(message, GenerationRecord).checkpointed_step == 0


def test_absent_is_not_mistaken_for_zero() -> None:
    alive = WorkerObserved(job_uid="j", slot=0, incarnation=1, pid=7, phase=WorkerPhase.RUNNING)
    exited = dataclasses.replace(alive, exit_code=0)
    for observed in (alive, exited):
        message = record_to_message(observed, records_pb2.WorkerObserved)
        assert message_to_record(message, WorkerObserved).exit_code == observed.exit_code


def test_spec_keeps_an_explicit_zero() -> None:
    job = TrainJob(metadata=JobMetadata(name="a"))
    desired = WorkerDesired(
        job_uid="j", job_name="a", island="i", slot=0, incarnation=1, instruction=Instruction.RUN, spec=to_wire(job)
    )
    message = record_to_message(desired, records_pb2.WorkerDesired)
    assert from_wire(TrainJob, message_to_record(message, WorkerDesired).spec) == job


@pytest.mark.parametrize(
    ("data", "names"),
    [
        ({"preparedGeneration": "x"}, "preparedGeneration"),
        ({"lineage": 1.5}, "lineage"),
        ({"voted": 3}, "voted"),
        ([], "StepReport"),
    ],
)
def test_wrong_shape_names_the_field(data: Any, names: str) -> None:
    with pytest.raises(WireError, match=names):
        from_wire(StepReport, data)


def test_unknown_field_of_a_newer_writer_is_ignored() -> None:
    data = {**to_wire(StepReport(prepared_generation=1, lineage=1, applied_step=2)), "fromTheFuture": 1}
    assert from_wire(StepReport, data).applied_step == 2


def test_what_is_wrong_deep_inside_is_named_with_its_place() -> None:
    good = {"slot": 1, "incarnation": 1, "node": "n", "agentIncarnation": 1, "address": "a"}
    with pytest.raises(WireError, match=r"GenerationRecord\.members\[1\]\.slot: expected int, found 'x'"):
        from_wire(GenerationRecord, {"members": [good, {**good, "slot": "x"}]})
    with pytest.raises(WireError, match=r"GenerationRecord\.members\[2\]: expected an object, found int"):
        from_wire(GenerationRecord, {"members": [good, good, 3]})
    with pytest.raises(WireError, match=r"GenerationRecord\.holders\[1\]: expected int, found True"):
        from_wire(GenerationRecord, {"rung": "peer", "holders": [0, True]})


def test_numbers_in_lists_are_read_from_either_spelling() -> None:
    """JSON's own, and that of protobuf, which has large ones as text."""
    record = from_wire(GenerationRecord, {"rung": "peer", "holders": [0, "2", 3.0]})
    assert record.holders == (0, 2, 3)
    assert all(type(number) is int for number in record.holders)
