"""What an agent says, when, and what it makes of answers, without a connection.

Without it an agent could obey a former leader, lose what it has to tell, or ask a busy controller again and again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from trainctl.agent.conversation import NEXT_TARGET_S, Conversation, Node
from trainctl.agent.outbox import FiguresOutbox, ReportsOutbox
from trainctl.agent.patience import FIRST_WORD_S, LEADER_SILENT_S
from trainctl.controller.agents.registry import StaleIncarnationError
from trainctl.core.clock import ManualClock
from trainctl.core.errors import TrainctlError, UnavailableError, UsageError
from trainctl.core.records.worker import CheckpointReport, RecoveryReport, WorkerDesired, WorkerObserved, WorkerPhase
from trainctl.protos.convert import record_to_message
from trainctl.protos.v1 import agent_pb2, records_pb2
from unit.agent.conversations import conversation
from unit.agent.messages import desired, figures

CHECKPOINT = CheckpointReport(job_uid="u", island="i", generation=1, step=1, lineage=0)


def registered(talk: Conversation, *, epoch: int = 1, heartbeat_s: float = 1.0) -> Conversation:
    talk.registered(agent_pb2.RegisterResponse(agent_incarnation=7, epoch=epoch, heartbeat_s=heartbeat_s))
    return talk


def ack(sequence: int = 0, figures_sequence: int = 0) -> agent_pb2.SessionResponse:
    return agent_pb2.SessionResponse(ack=agent_pb2.Ack(sequence=sequence, figures_sequence=figures_sequence))


def wanted(epoch: int, *workers: WorkerDesired, **fields: Any) -> agent_pb2.SessionResponse:
    messages = [record_to_message(worker, records_pb2.WorkerDesired) for worker in workers]
    return agent_pb2.SessionResponse(desired=agent_pb2.AgentDesired(epoch=epoch, workers=messages, **fields))


def said(talk: Conversation) -> list[str | None]:
    """Kinds of all that waits, in the order in which it goes out."""
    kinds: list[str | None] = []
    while (message := talk.next_message()) is not None:
        kinds.append(message.WhichOneof("message"))
    return kinds


def test_a_stream_begins_with_who_speaks_and_whom_it_has_heard() -> None:
    talk = registered(conversation(), epoch=3)
    assert talk.begin().hello == agent_pb2.AgentHello(node="n", agent_incarnation=7, epoch=3)
    talk.hear(wanted(5))
    assert talk.begin().hello.epoch == 5
    registered(talk, epoch=4)
    assert talk.begin().hello.epoch == 5, "a later life knows what the former one heard"


def test_the_most_urgent_goes_first() -> None:
    waiting, reports = FiguresOutbox(), ReportsOutbox()
    talk = registered(conversation(figures=waiting, reports=reports))
    talk.say_goodbye("the end")
    waiting.add("u", [figures(1)])
    reports.add(CHECKPOINT)
    reports.add(RecoveryReport(job_uid="u", island="i", generation=1, global_rank=0, slot=0))
    talk.begin()
    assert said(talk) == ["observed", "checkpoint", "recovery", "figures", "goodbye"]
    assert said(talk) == []


def test_the_next_stream_says_again_what_was_not_acknowledged() -> None:
    waiting, reports = FiguresOutbox(), ReportsOutbox()
    talk = registered(conversation(figures=waiting, reports=reports))
    waiting.add("u", [figures(1)])
    reports.add(CHECKPOINT)
    for _ in range(2):
        talk.begin()
        assert said(talk) == ["observed", "checkpoint", "figures"]
    talk.observe()
    talk.next_message()
    talk.hear(ack(sequence=3, figures_sequence=1))
    talk.begin()
    assert said(talk) == ["observed"]


def test_news_of_one_moment_go_out_together() -> None:
    talk = conversation()
    assert [talk.changed(), talk.changed()] == [True, False]
    talk.observe()
    assert said(talk) == ["observed"]
    assert talk.changed()


def test_what_is_wanted_is_handed_on_and_confirmed() -> None:
    taken: list[Sequence[WorkerDesired]] = []
    forgotten: list[Sequence[str]] = []
    node = Node(observe=lambda: (), store_address=lambda: "h:1", set_desired=taken.append, forget_jobs=forgotten.append)
    talk = registered(conversation(node=node))
    assert talk.hear(wanted(1, desired(), version=4, deleted_jobs=["old"]))
    assert (taken, list(forgotten[0])) == ([[desired()]], ["old"])
    talk.observe()
    assert talk.next_message() == agent_pb2.SessionRequest(
        observed=agent_pb2.AgentObserved(sequence=1, desired_version=4, store_address="h:1")
    )


def test_a_former_leader_is_not_obeyed() -> None:
    refused: list[bool] = []
    talk = registered(conversation(on_refused=lambda: refused.append(True)), epoch=5)
    assert not talk.hear(wanted(4, desired(), version=9))
    talk.observe()
    message = talk.next_message()
    assert message is not None
    assert (refused, message.observed.desired_version) == ([True], 0)


def test_a_worker_without_news_costs_no_new_message(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []

    def counting(record: WorkerObserved, kind: Any) -> Any:
        made.append(record.slot)
        return record_to_message(record, kind)

    monkeypatch.setattr("trainctl.agent.conversation.record_to_message", counting)
    pids = [10, 11]

    def observe() -> tuple[WorkerObserved, ...]:
        return tuple(
            WorkerObserved(job_uid="u", slot=slot, incarnation=7, pid=pid, phase=WorkerPhase.RUNNING)
            for slot, pid in enumerate(pids)
        )

    node = Node(observe=observe, store_address=str, set_desired=lambda _: None, forget_jobs=lambda _: None)
    talk = conversation(node=node)
    for pids[1] in (11, 11, 12):
        talk.observe()
        message = talk.next_message()
        assert message is not None
        assert [worker.pid for worker in message.observed.workers] == pids
    assert made == [0, 1, 1]


def test_it_beats_only_after_a_heartbeat_without_an_observation() -> None:
    clock = ManualClock(100.0)
    talk = registered(conversation(clock=clock))
    talk.begin()
    assert talk.beat_at_s() == 101.0
    clock.advance(0.75)
    talk.observe()
    said(talk)
    clock.advance(0.25)
    assert not talk.beat(), "there was something else to say"
    assert said(talk) == []
    assert talk.beat_at_s() == 101.75
    clock.advance(0.75)
    assert talk.beat()
    assert said(talk) == ["observed"]


def test_a_leader_that_is_silent_is_left_where_there_are_others() -> None:
    clock = ManualClock()
    several, alone = (registered(conversation(*targets, clock=clock)) for targets in (("a:1", "b:1"), ("a:1",)))
    for talk in (several, alone):
        talk.begin()
    clock.advance(FIRST_WORD_S)
    assert several.gives_up(), "it has said nothing yet"
    several.hear(ack())
    clock.advance(LEADER_SILENT_S)
    assert not several.gives_up(), "one that was heard gets longer"
    clock.advance(1.0)
    assert several.gives_up()
    assert not alone.gives_up()


def test_controllers_have_their_turns_and_pauses_grow_once_all_were_asked() -> None:
    talk = conversation("a:1", "b:1")
    asked, pauses_s = [], []
    for _ in range(40):
        asked.append(talk.target)
        pauses_s.append(talk.next_pause_s())
    assert asked == ["a:1", "b:1"] * 20
    assert set(pauses_s[::2]) == {NEXT_TARGET_S}
    assert min(pauses_s[1::2]) >= 0.1
    assert max(pauses_s[1::2]) > 0.3


def test_only_who_is_understood_asks_again_soon() -> None:
    talk = registered(conversation())
    while talk.next_pause_s() < 0.9:
        pass
    talk.hear(wanted(1))
    assert talk.next_pause_s() > 0.1, "told what to do, but not that it was understood"
    talk.hear(ack())
    assert talk.next_pause_s() <= 0.3


def test_a_controller_says_when_it_wants_to_be_asked_again() -> None:
    talk = conversation()
    assert not talk.judge(UnavailableError("busy", retry_after_s=5.0))
    assert 5.0 <= talk.next_pause_s() <= 7.5
    assert talk.next_pause_s() <= 2.0, "once"


def test_a_life_that_was_declared_over_is_followed_by_another() -> None:
    talk = registered(conversation())
    assert talk.judge(StaleIncarnationError("over"))
    assert talk.incarnation == 0


def test_what_will_not_go_away_ends_an_agent_only_before_its_first_registration() -> None:
    talk = conversation()
    with pytest.raises(UsageError):
        talk.judge(UsageError("--slots"))
    assert not registered(talk).judge(UsageError("--slots")), "its workers train on"


def test_an_agent_whose_certificates_fit_no_controller_ends() -> None:
    talk = conversation("a:1", "b:1")
    error = TrainctlError("expects TLS")
    assert not talk.judge(error, misfits=1)
    with pytest.raises(TrainctlError, match="expects TLS"):
        talk.judge(error, misfits=2)


def test_silence_is_counted_from_the_end_of_a_stream_on_which_somebody_spoke() -> None:
    clock = ManualClock()
    talk = registered(conversation(clock=clock))
    clock.advance(10.0)
    talk.begin()
    talk.end()
    assert talk.silent_s() == 10.0, "nobody said a word"
    talk.begin()
    talk.hear(ack())
    assert talk.silent_s() == 0.0
    clock.advance(5.0)
    talk.end()
    clock.advance(2.0)
    assert talk.silent_s() == 2.0
