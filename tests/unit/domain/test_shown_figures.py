"""What is shown of a job's step and figures while a new leader knows only what the one before left behind.

Without it a job would seem to fall back after each fail-over.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from trainctl.controller.domain.explain import explain
from trainctl.controller.domain.job_state import JobState
from trainctl.controller.domain.reconcile import observe_figures
from trainctl.controller.domain.shown_figures import ShownFigures, shown_figures
from trainctl.controller.domain.states import JobPhase
from trainctl.controller.domain.view import AgentView, ClusterView, ListedAgents
from trainctl.controller.jobs.job_message import job_message
from trainctl.controller.metrics.jobs import job_samples
from trainctl.core.records.spec import NodesSpec
from trainctl.core.records.worker import Progress, WorkerObserved, WorkerPhase
from unit.domain.domain_sim import Simulation, sim_job
from unit.domain.sample_figures import figure

STORED = 7
AGO_S = 30.0
"""Between the newest figures and the new leader's term."""


@pytest.fixture(scope="module")
def job() -> JobState:
    """As a new leader finds it: it runs, and the step that happened to be stored is an old one."""
    sim = Simulation(7, sim_job(nodes=NodesSpec(min=2, max=2), per_node=1, steps=400), agents=2, slots=1, fault_rate=0)
    sim.until(JobPhase.RUNNING)
    progress = replace(
        sim.state.progress, step=STORED, loss=2.5, updated_s=sim.state.phase_since_s, recent_step_s=(0.1,)
    )
    return replace(sim.state, progress=progress)


def since(job: JobState) -> float:
    return job.phase_since_s + AGO_S


def seen(job: JobState, *steps: int, generation: int = 1) -> ClusterView:
    """Agents that have reported, with the steps of their workers; the others have not."""
    agents = [
        AgentView(
            node=slot.node,
            agent_incarnation=slot.agent_incarnation,
            workers=tuple(
                WorkerObserved(
                    job_uid=job.uid, slot=slot.index, incarnation=slot.incarnation, pid=1, phase=WorkerPhase.RUNNING,
                    generation=generation, progress=Progress(generation=generation, step=step),
                )
                for step in steps[slot.index : slot.index + 1]
            ),
        )
        for slot in job.sole_island.slots
    ]  # fmt: skip
    return ClusterView(agents=ListedAgents(agents))


def shown(job: JobState, view: ClusterView) -> ShownFigures:
    return shown_figures(job, view, since_s=since(job))


def test_before_any_agent_reports_all_of_it_is_old(job: JobState) -> None:
    found = shown(job, seen(job))
    assert found == ShownFigures(step=STORED, as_of_s=job.progress.updated_s, stale=True, step_stale=True)
    status = job_message(job, seen(job), now_s=since(job) + 1, revision=1, since_s=since(job)).status
    assert (status.step, status.loss, status.step_stale, status.figures_stale) == (STORED, 2.5, True, True)
    assert status.figures_as_of_s == job.progress.updated_s
    assert (status.tokens_per_s, status.eta_s) == (0.0, 0.0), "the pace is not known"


def test_the_first_report_of_one_agent_tells_the_step(job: JobState) -> None:
    found = shown(job, seen(job, 300))
    assert found == ShownFigures(step=300, as_of_s=job.progress.updated_s, stale=True)
    assert shown(job, seen(job, 300, 301)).step == 301


def test_where_workers_did_no_more_nothing_is_old(job: JobState) -> None:
    assert shown(job, seen(job, STORED, STORED)) == ShownFigures(step=STORED, as_of_s=job.progress.updated_s)


def test_what_was_done_in_another_generation_may_be_given_up(job: JobState) -> None:
    assert shown(job, seen(job, 300, generation=9)).step == STORED


def test_what_a_new_generation_goes_on_from_is_known(job: JobState) -> None:
    """Between its commit and the first report from within it."""
    island = job.sole_island
    assert island.record is not None
    recovered = job.with_island(replace(island, record=replace(island.record, generation=2, target_step=300)))
    assert shown(recovered, seen(job, 300)) == ShownFigures(step=300, as_of_s=job.progress.updated_s, stale=True)


def test_figures_of_this_term_are_new(job: JobState) -> None:
    after = observe_figures(job, [figure(job, 300, tokens=1)], since(job) + 1.0).state
    assert shown(after, seen(job)) == ShownFigures(step=300, as_of_s=since(job) + 1.0)
    late = replace(figure(job, 300, tokens=1), wall_s=since(job) - 5.0)
    from_file = observe_figures(job, [late], since(job) + 1.0, live=False).state
    assert shown(from_file, seen(job)).as_of_s == since(job) - 5.0
    assert shown(from_file, seen(job)).step_stale


def test_a_step_that_an_agent_told_does_not_go_back_while_its_figures_come(job: JobState) -> None:
    some = observe_figures(job, [figure(job, 100, tokens=1)], since(job) + 1.0).state
    assert shown(some, seen(job, 300)) == ShownFigures(step=300, as_of_s=since(job) + 1.0, stale=True)
    rest = observe_figures(some, [figure(job, 299, tokens=1)], since(job) + 2.0).state
    assert shown(rest, seen(job, 300)) == ShownFigures(step=300, as_of_s=since(job) + 2.0)
    assert (
        shown(observe_figures(rest, [figure(job, 301, tokens=1)], since(job) + 3.0).state, seen(job, 300)).step == 301
    )


def test_who_trains_for_the_first_time_or_no_more_has_nothing_old(job: JobState) -> None:
    begun = replace(job, started_s=since(job) + 1.0, progress=replace(job.progress, step=0, updated_s=0.0))
    assert shown(begun, seen(job)) == ShownFigures(step=0, as_of_s=0.0)
    assert not shown(replace(job, phase=JobPhase.SUCCEEDED), seen(job)).stale
    island = replace(job.sole_island, slots=tuple(replace(s, agent_incarnation=0) for s in job.sole_island.slots))
    assert not shown(replace(job.with_island(island), phase=JobPhase.PAUSED), seen(job)).stale
    command = replace(job, spec=replace(job.spec, spec=replace(job.spec.spec, command=("true",))))
    idle = replace(command, progress=replace(job.progress, step=0, updated_s=0.0))
    assert not shown(idle, seen(job)).stale, "it counts no steps"


def test_a_job_of_which_no_step_was_stored_is_as_old_as_its_phase(job: JobState) -> None:
    fresh = replace(job, progress=replace(job.progress, step=0, loss=None, updated_s=0.0))
    found = shown(fresh, seen(job))
    assert found == ShownFigures(step=0, as_of_s=job.phase_since_s, stale=True, step_stale=True)
    told = explain(fresh, since(job), figures=found)
    assert any("step 0 of 400 is" in line for line in told)


def test_nobody_is_told_that_a_job_stands_still_by_who_cannot_know(job: JobState) -> None:
    now_s = since(job) + 300.0
    assert any("no step was committed" in line for line in explain(job, now_s))
    told = explain(job, now_s, figures=shown(job, seen(job)))
    assert not any("no step was committed" in line for line in told)
    assert "step 7 of 400 is 5m30s old: its agents have not reported to this leader yet" in told
    told = explain(job, now_s, figures=shown(job, seen(job, 300)))
    assert "step 300 of 400; its figures are 5m30s old: newer ones have not come to this leader yet" in told


def test_a_metric_does_not_go_back_with_the_leader(job: JobState) -> None:
    gauges = {"trainctl_job_step", "trainctl_job_loss", "trainctl_job_skipped_steps"}
    before = {name for name, _, _ in job_samples(job, since(job) + 1, since_s=since(job))}
    assert not gauges & before
    after = observe_figures(job, [figure(job, 300, tokens=1)], since(job) + 1.0).state
    assert gauges <= {name for name, _, _ in job_samples(after, since(job) + 1, since_s=since(job))}
