"""Who has yet to answer what a job's workers were told.

Without it a controller looks at a job of a thousand workers again and again while their answers come in, or waits for
one that has come.
"""

from __future__ import annotations

from dataclasses import replace

from trainctl.controller.domain.goodput import Goodput
from trainctl.controller.domain.job_state import Cause, IslandState, JobState, Proposal, Slot
from trainctl.controller.domain.pace import Heard, pause_s
from trainctl.controller.jobs.answers import Answers
from trainctl.core.records.generation import GenerationRecord
from trainctl.core.records.spec import JobMetadata, TrainJob
from trainctl.core.records.step import StepReport
from trainctl.core.records.worker import WorkerObserved, WorkerPhase
from unit.generation_records import generation_record, member

UID = "j"
AGENTS = (101, 101, 102)
"""Of three slots."""


def job(*, proposal: Proposal | None = None, record: GenerationRecord | None = None, entered: bool = False) -> JobState:
    slots = tuple(Slot(index=index, agent_incarnation=agent) for index, agent in enumerate(AGENTS))
    island = IslandState(id="island-0", slots=slots, proposal=proposal, record=record, entered=entered)
    spec = TrainJob(metadata=JobMetadata(name="a"))
    return JobState(
        uid=UID,
        spec=spec,
        user_spec=spec,
        workdir="file:/w",
        submitted_s=0.0,
        goodput=Goodput(start_us=0, since_us=0),
        islands=(island,),
    )


def proposed(generation: int) -> Proposal:
    return Proposal(generation=generation, slots=(0, 1, 2), members=(), cause=Cause.START, reason="", since_s=0.0)


def committed(generation: int) -> GenerationRecord:
    members = tuple(member(rank, agent_incarnation=agent) for rank, agent in enumerate(AGENTS))
    return generation_record(generation, job_uid=UID, members=members)


def worker(slot: int, *, prepared: int = 0, entered: int = 0, uid: str = UID) -> WorkerObserved:
    report = StepReport(prepared_generation=prepared, lineage=1, applied_step=0) if prepared else None
    phase = WorkerPhase.RUNNING if entered else WorkerPhase.READY
    return WorkerObserved(job_uid=uid, slot=slot, incarnation=1, pid=1, phase=phase, generation=entered, report=report)


def test_a_proposal_is_answered_when_every_agent_has_prepared_all_its_workers() -> None:
    answers, state = Answers(), job(proposal=proposed(4))
    assert answers.awaited(state)
    assert not answers.take(state, 101, (worker(0, prepared=4), worker(1)))
    assert not answers.take(state, 101, (worker(0, prepared=4), worker(1, prepared=3)))
    assert not answers.take(state, 101, ()), "nothing of this job"
    assert not answers.take(state, 103, (worker(2, prepared=4),)), "nobody who was asked"
    assert answers.take(state, 101, (worker(0, prepared=4), worker(1, prepared=4), worker(0, uid="other")))
    assert answers.awaited(state)
    assert answers.take(state, 102, (worker(2, prepared=4),))
    assert not answers.awaited(state)
    assert not answers.take(state, 102, (worker(2, prepared=4),)), "said before: this is other news"


def test_a_record_is_answered_when_all_train_in_it() -> None:
    answers, record = Answers(), committed(4)
    state = job(record=record)
    assert not answers.take(state, 102, (worker(2, prepared=4),))
    assert answers.take(state, 102, (worker(2, entered=4),))
    assert answers.take(state, 101, (worker(0, entered=4), worker(1, entered=4)))
    assert not answers.awaited(state)
    assert not answers.awaited(job(record=record, entered=True))


def test_another_question_is_asked_of_all_again() -> None:
    answers, state = Answers(), job(proposal=proposed(4))
    assert answers.take(state, 102, (worker(2, prepared=4),))
    assert answers.awaited(replace(state)), "the same question"
    again = job(proposal=proposed(5))
    assert not answers.take(again, 102, (worker(2, prepared=4),))
    assert answers.take(again, 102, (worker(2, prepared=5),))
    assert not answers.awaited(job()), "nothing is asked"


def test_while_others_are_to_answer_an_answer_is_less_urgent_than_a_failure() -> None:
    pauses = {heard: pause_s(slots=1000, agents=1000, heard=heard) for heard in Heard}
    assert pauses[Heard.NEWS] < pauses[Heard.ANSWER] <= pauses[Heard.PROGRESS]
    assert pauses[Heard.ANSWER] <= 0.5, "if the last answer is not known as such, it is found no later"
