"""Without it what a worker tells its agent could be lost, mixed up or hold training up when the agent is slow."""

from __future__ import annotations

import math
import socket
import threading
from collections.abc import Iterator

import pytest

from trainctl.core.codec import WireError
from trainctl.core.records.step import StepReport
from trainctl.core.records.worker import CheckpointReport, Instruction, RecoveryReport, WorkerError
from trainctl.parallel import bridge
from trainctl.parallel.bridge import Figures, Finished, Instruct, Message, MessageReader, WorkerBridge
from unit.agent.messages import desired, figures


class AgentEnd:
    def __init__(self) -> None:
        self.socket, worker = socket.socketpair()
        self.socket.settimeout(10)
        self.reader = MessageReader()
        self.ended = threading.Event()
        self.bridge = WorkerBridge(worker.detach(), on_eof=self.ended.set)

    def send(self, message: Message) -> None:
        self.socket.sendall(bridge.encode(message))

    def receive(self, count: int) -> list[Message]:
        messages: list[Message] = []
        while len(messages) < count:
            data = self.socket.recv(65536)
            assert data
            messages += self.reader.feed(data)
        return messages


@pytest.fixture
def agent() -> Iterator[AgentEnd]:
    end = AgentEnd()
    yield end
    end.bridge.close()
    end.socket.close()


@pytest.mark.parametrize(
    "message",
    [
        Instruct(desired(Instruction.PREPARE, 3)),
        bridge.Ready(7),
        bridge.Reported(StepReport(prepared_generation=2, lineage=0, applied_step=-1)),
        bridge.Running(4),
        bridge.Checkpointed(CheckpointReport(job_uid="u", island="i", generation=1, step=2, lineage=0, error="full")),
        bridge.Recovered(
            RecoveryReport(job_uid="u", island="i", generation=1, global_rank=0, slot=0, received_bytes={"rank 2": 5})
        ),
        bridge.Failed(WorkerError(type="ValueError", message="a\nb", log_tail=("x",))),
        Finished(9),
    ],
)
def test_each_message_survives_the_wire(message: Message) -> None:
    line = bridge.encode(message)
    assert line.count(b"\n") == 1
    assert bridge.decode(line) == message


def test_figures_keep_not_a_number() -> None:
    read = bridge.decode(bridge.encode(Figures((figures(3),))))
    assert isinstance(read, Figures)
    assert math.isnan(read.figures[0].loss)
    assert read.figures[0].sample_digest == 2**63 + 1


def test_reader_joins_pieces() -> None:
    data = bridge.encode(bridge.Ready()) + bridge.encode(Finished(1))
    reader = MessageReader()
    read = [message for index in range(len(data)) for message in reader.feed(data[index : index + 1])]
    assert read == [bridge.Ready(), Finished(1)]


@pytest.mark.parametrize(
    "line", [b"", b"{}", b"[]", b'{"type":"Nope","body":{}}', b"\xff", b'{"type":"Finished","body":3}']
)
def test_foreign_lines_are_refused(line: bytes) -> None:
    with pytest.raises(WireError):
        bridge.decode(line)


def test_instructions_arrive_and_repeats_are_ignored(agent: AgentEnd) -> None:
    seen: list[Instruction] = []
    agent.send(Instruct(desired()))
    assert agent.bridge.latest() == desired()
    version = agent.bridge.version
    agent.bridge.on_change(lambda instruction: seen.append(instruction.instruction))
    agent.send(Instruct(desired()))
    agent.send(Instruct(desired(Instruction.PREPARE, 1)))
    assert agent.bridge.wait_newer(version, 10) == desired(Instruction.PREPARE, 1)
    assert agent.bridge.version == version + 1
    assert agent.bridge.wait_newer(version + 1, 0.01) is None
    agent.send(Instruct(desired(Instruction.STOP, 1)))
    assert agent.bridge.wait_newer(version + 1, 10) is not None
    agent.send(Instruct(desired(Instruction.KILL, 1)))  # once this one is there, the callbacks of the former have run
    assert agent.bridge.wait_newer(version + 2, 10) is not None
    assert seen[:3] == [Instruction.STANDBY, Instruction.PREPARE, Instruction.STOP]


def test_messages_are_flushed_in_order(agent: AgentEnd) -> None:
    for step in range(5):
        agent.bridge.send(Figures((figures(step),)))
    agent.bridge.send(Finished(5))
    assert agent.bridge.flush(10)
    assert agent.receive(6)[-1] == Finished(5)


def fits(worker: WorkerBridge, step: int) -> bool:
    """Sends one figure; whether the socket still took it."""
    worker.send(Figures((figures(step),)))
    return worker.flush(0.1)


def test_a_stalled_agent_costs_old_figures_only(agent: AgentEnd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bridge, "MAX_QUEUED_FIGURES", 10)
    agent.bridge.send(bridge.Running(1))
    stalled_at = next(step for step in range(1_000_000) if not fits(agent.bridge, step))
    for step in range(stalled_at + 1, stalled_at + 101):
        agent.bridge.send(Figures((figures(step),)))
    agent.bridge.send(Finished(0))
    assert not agent.bridge.flush(0.01)
    messages: list[Message] = []
    while not messages or messages[-1] != Finished(0):
        messages += agent.receive(1)
    steps = [message.figures[0].step for message in messages if isinstance(message, Figures)]
    assert messages[0] == bridge.Running(1)
    assert steps == sorted(steps)
    assert steps[-10:] == list(range(stalled_at + 91, stalled_at + 101))
    assert len(steps) < stalled_at + 50
    assert agent.bridge.flush(10)


def test_end_of_the_agent_is_noticed(agent: AgentEnd) -> None:
    agent.socket.close()
    assert agent.ended.wait(10)
    with pytest.raises(InterruptedError):
        agent.bridge.latest()


def test_a_broken_message_ends_the_worker(agent: AgentEnd) -> None:
    agent.socket.sendall(b"nonsense\n")
    assert agent.ended.wait(10)


def test_closing_is_not_an_orphan(agent: AgentEnd) -> None:
    agent.bridge.close()
    assert agent.bridge.wait_newer(0, 10) is None
    assert agent.socket.recv(1) == b""
    assert not agent.ended.is_set()
